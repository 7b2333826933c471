"""The consent register's use cases: import it, look at it again, show what it says. Identified; for the operator alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import assert_never

from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import NotFoundError, StateError
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.consent import register
from station.intake.consent.codes import load_codes
from station.intake.consent.decisions import Purpose, Register
from station.intake.consent.effective import Answer, answers
from station.intake.consent.fhir import read_fhir
from station.intake.consent.register_file import read_patient_facts, read_register
from station.intake.consent.resolution import Bearer, Standing, of_patient
from station.intake.consent.rules import ConsentRules
from station.intake.consent.tables import ConsentDecisionRow, ConsentImportRow
from station.intake.outcomes import ConsentReport


class RegisterFormat(StrEnum):
    """What a register may be written as."""

    CSV = "csv"
    FHIR = "fhir"
    FHIR_LINES = "ndjson"


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of a patient's history in the register."""

    imported_at: datetime
    source: str
    stated: bool
    issuer: str
    purpose: str
    decision: str
    made: str
    given_by: str
    valid_from: str | None
    valid_until: str | None


@dataclass(frozen=True, slots=True)
class PatientConsent:
    """What the register says of one patient, today and from the beginning.

    Attributes:
        images_here: whether images of theirs came in.
    """

    issuer: str
    images_here: bool
    birth_date: date | None
    deceased: date | None
    answers: dict[Purpose, Answer]


@dataclass(frozen=True, slots=True)
class ConsentStatus:
    """The register in counts.

    Attributes:
        decisions: that stand.
        registry_apart: whether the supply to the registry is a question of its own.
        ambiguous_ids: patient ids that two issuers gave out.
        grounds: of the patients whose images are here and of whom something is stated about research: how many have an
            answer on each ground.
    """

    sequence: int
    source_date: datetime | None
    imports: int
    decisions: int
    patients: int
    registry_apart: bool
    ambiguous_ids: int
    grounds: dict[str, int]


class ConsentDesk:
    """What the operator asks of the register.

    Args:
        books: intake's.
        rules: how the register is to be read.
    """

    def __init__(self, books: Books, rules: ConsentRules) -> None:
        self._books = books
        self._rules = rules

    def import_register(
        self, data: bytes, form: RegisterFormat, *, source_date: datetime | None = None
    ) -> ConsentReport:
        """Take a register as what is stated now, and hand over what it comes to.

        Args:
            data: the file.
            form: what it is written as.
            source_date: the moment it was read at its source; now unless told. Its age is checked by rule at compute (I7).

        Raises:
            CsvError, ConsentEntryError, DocumentError, DataError: naming where; nothing is imported.
        """
        now = self._books.clock()
        read = self._read(data, form, self._rules.today(now))
        with self._books.decide() as session:
            register.replace(
                session,
                read,
                source=form.value,
                digest=digest_of(data),
                source_date=source_date or now,
                now=now,
            )
            report = register.hand_over(session, now=now, rules=self._rules)
        if report is None:
            raise StateError("consent register: what was just imported is not there")
        return report

    def import_patients(self, data: bytes) -> ConsentReport:
        """Take up births and deaths, and hand over what that changes; nothing before the first register.

        Raises:
            CsvError: naming line and column; nothing is imported.
        """
        facts = read_patient_facts(data)
        now = self._books.clock()
        with self._books.decide() as session:
            register.add_facts(session, facts, now=now)
            report = register.hand_over(session, now=now, rules=self._rules)
        return report or ConsentReport(0, 0, 0, 0)

    def review(self) -> bool:
        """Resolve the state as of now and hand over what changed; tells whether there was anything to look at anew."""
        now = self._books.clock()
        with self._books.decide() as session:
            return register.hand_over_if_due(session, now=now, rules=self._rules)

    def show(
        self, patient_id: str, issuer: str | None = None
    ) -> tuple[list[PatientConsent], list[HistoryLine]]:
        """Return what the register says of a patient, audited first.

        Args:
            patient_id: the hospital's id.
            issuer: who gave it out; everybody of that id where None.

        Raises:
            NotFoundError: neither the register nor intake knows the id.
        """
        now = self._books.clock()
        with self._books.database.write() as session:
            everybody = register.bearers_of(session)
            here = _asked(everybody, patient_id, issuer)
            lines = list(_history(session, patient_id, issuer))
            if not here and not lines:
                raise NotFoundError("nobody of that id is in the register or has images here")
            standing = register.standing_of(session, self._rules)
            found = here or [
                [Bearer("", one, patient_id)]
                for one in ([issuer] if issuer is not None else sorted({line.issuer for line in lines}))
            ]
            cards = [self._card(standing, ids, everybody, now) for ids in found]
            # The audit names nobody: pseudonyms of those who have images here.
            fields: dict[str, str | int] = {"patients": len(found), "decisions": len(lines)}
            fields["pseudonyms"] = " ".join(ids[0].pseudonym for ids in here)
            record(session, IntakeEvent.CONSENT_SHOWN, fields, now=now)
        return cards, lines

    def status(self) -> ConsentStatus:
        """Return the register in counts."""
        now = self._books.clock()
        with self._books.database.read() as session:
            standing = register.standing_of(session, self._rules)
            resolved = register.resolved_of(session, standing, self._rules.today(now))
            sequence, source_date = register.source_of(session)
            return ConsentStatus(
                sequence=sequence,
                source_date=source_date,
                imports=register.imports_of(session),
                decisions=sum(len(decisions) for decisions in standing.decisions.values()),
                patients=len({d.patient for found in standing.decisions.values() for d in found}),
                registry_apart=standing.registry_apart,
                ambiguous_ids=resolved.ambiguous,
                grounds={ground.value: count for ground, count in sorted(resolved.grounds.items())},
            )

    def _read(self, data: bytes, form: RegisterFormat, today: date) -> Register:
        match form:
            case RegisterFormat.CSV:
                return read_register(data)
            case RegisterFormat.FHIR | RegisterFormat.FHIR_LINES:
                codes = load_codes(self._rules.codes_file)
                return read_fhir(data, codes, today=today, lines=form is RegisterFormat.FHIR_LINES)
            case _:
                assert_never(form)

    def _card(
        self, standing: Standing, ids: list[Bearer], everybody: list[Bearer], now: datetime
    ) -> PatientConsent:
        others = {one.patient_id for one in everybody if one.pseudonym != ids[0].pseudonym}
        concerning, facts = of_patient(standing, ids, {one.patient_id for one in ids} & others)
        holding = answers(concerning, facts, self._rules.today(now), registry_apart=standing.registry_apart)
        here = bool(ids[0].pseudonym)
        return PatientConsent(ids[0].issuer, here, facts.birth_date, facts.deceased, holding)


def _asked(everybody: list[Bearer], patient_id: str, issuer: str | None) -> list[list[Bearer]]:
    """Return the patients of an id who have images here, each under all their ids."""
    pseudonyms = {
        one.pseudonym
        for one in everybody
        if one.patient_id == patient_id and (issuer is None or one.issuer == issuer)
    }
    return [[one for one in everybody if one.pseudonym == pseudonym] for pseudonym in sorted(pseudonyms)]


def _history(session: Session, patient_id: str, issuer: str | None) -> Iterator[HistoryLine]:
    query = (
        select(ConsentDecisionRow, ConsentImportRow)
        .join(ConsentImportRow, ConsentImportRow.id == ConsentDecisionRow.import_id)
        .where(ConsentDecisionRow.patient_id == patient_id)
        .order_by(ConsentDecisionRow.id)
    )
    for row, source in session.execute(query):
        # What names no issuer may be about anybody of that id.
        if issuer is None or row.issuer in {issuer, ""}:
            yield HistoryLine(
                source.imported_at, source.format, row.stated, row.issuer, row.purpose, row.decision, row.made,
                row.given_by, row.valid_from, row.valid_until,
            )  # fmt: skip
