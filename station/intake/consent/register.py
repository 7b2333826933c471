"""The consent register in intake's database: its history, what stands of it, and the state that compute gets.

Each function works within the caller's transaction. Invariants: a decision that was stated is never changed or removed; a
register that forgets an objection does not end it; compute gets decisions that hold today, and no date of birth.
"""

from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from hashlib import sha256

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import Session

from policies.documents import canonical_json, digest_of
from policies.errors import StateError
from station.handover import ConsentContent
from station.intake import outbox
from station.intake.audit import IntakeEvent, record
from station.intake.consent.decisions import (
    WORDS,
    Decision,
    GivenBy,
    PatientFacts,
    PatientId,
    Purpose,
    Register,
)
from station.intake.consent.resolution import Bearer, Resolved, Standing, resolve
from station.intake.consent.rules import ConsentRules
from station.intake.consent.tables import (
    ConsentDecisionRow,
    ConsentImportRow,
    ConsentPatientRow,
    ConsentSourceRow,
)
from station.intake.merges.register import known_patients
from station.intake.outcomes import ConsentReport
from station.intake.schema import MergeRow, PatientRow

_THE_SOURCE = 1
_DEFAULT = ConsentRules()


def replace(
    session: Session, read: Register, *, source: str, digest: str, source_date: datetime, now: datetime
) -> None:
    """Take a register that was read as what is stated now; the history grows by what that changes.

    Args:
        session: a write transaction.
        read: what the file stated.
        source: its format.
        digest: of the file.
        source_date: when the register was read at its source.
        now: the moment.
    """
    row = ConsentImportRow(
        format=source,
        digest=digest,
        source_date=source_date,
        imported_at=now,
        decisions=len(read.decisions),
    )
    session.add(row)
    session.flush()
    before = _stated(session)
    stated = set(read.decisions)
    new = [decision for decision in read.decisions if not before.get(decision, False)]
    gone = [decision for decision, holds in before.items() if holds and decision not in stated]
    lines = [_values(row.id, decision, stated=True) for decision in new]
    lines += [_values(row.id, decision, stated=False) for decision in gone]
    if lines:
        session.execute(insert(ConsentDecisionRow), lines)
    _keep_facts(session, read.facts)
    state = session.get(ConsentSourceRow, _THE_SOURCE)
    if state is None:
        session.add(ConsentSourceRow(id=_THE_SOURCE, source_date=source_date, sequence=0))
    else:
        state.source_date = source_date
    session.flush()
    fields: dict[str, str | int] = {
        "import": row.id,
        "format": source,
        "digest": digest,
        "decisions": len(stated),
        "new": len(new),
        "no_longer_stated": len(gone),
        "passed_over": read.passed_over,
        "source_date": source_date.isoformat(),
    }
    record(session, IntakeEvent.CONSENT_IMPORTED, fields, now=now)


def add_facts(session: Session, facts: Mapping[PatientId, PatientFacts], *, now: datetime) -> None:
    """Take up births and deaths from a file of their own; what it does not say stays."""
    _keep_facts(session, facts)
    record(session, IntakeEvent.CONSENT_PATIENTS_IMPORTED, {"patients": len(facts)}, now=now)


def hand_over(session: Session, *, now: datetime, rules: ConsentRules = _DEFAULT) -> ConsentReport | None:
    """Put the state in the outbox when it differs from the last one; None before the first import.

    Due after an import, after new patients came in (the register may hold decisions of theirs already), and as time goes by:
    consents begin and end, minors turn 16.
    """
    source = session.get(ConsentSourceRow, _THE_SOURCE)
    if source is None:
        return None
    standing = standing_of(session, rules)
    resolved = resolved_of(session, standing, rules.today(now))
    content = ConsentContent(
        consent_sequence=source.sequence + 1, source_date=source.source_date, records=resolved.records
    )
    digest = digest_of(canonical_json(content.model_dump(mode="json", exclude={"consent_sequence"})))
    if digest != source.handed_over:
        outbox.enqueue(session, content, len(resolved.records), now=now)
        source.sequence += 1
        source.handed_over = digest
    source.looked_at = _basis(session, source, now, rules)
    entries = sum(len(decisions) for decisions in standing.decisions.values())
    return ConsentReport(entries, len(resolved.records), resolved.ambiguous, source.sequence)


def hand_over_if_due(session: Session, *, now: datetime, rules: ConsentRules = _DEFAULT) -> bool:
    """As `hand_over`, unless nothing that the last look went by has changed since: neither day, register nor patients."""
    source = session.get(ConsentSourceRow, _THE_SOURCE)
    if source is None or source.looked_at == _basis(session, source, now, rules):
        return False
    hand_over(session, now=now, rules=rules)
    return True


def standing_of(session: Session, rules: ConsentRules) -> Standing:
    """Return all decisions that stand: what the last import stated, and every objection there ever was.

    Whether an objection still holds is not asked here: a later consent may be in its place, for as long as that is in effect.
    """
    history = _stated(session)
    # Once a register has asked it apart, a later one that is silent about it does not answer it.
    apart = rules.registry_asked_apart or any(
        decision.purpose is Purpose.REGISTRY and decision.word != "objection" for decision in history
    )
    holding = (decision for decision, stated in history.items() if stated or decision.word == "objection")
    return Standing.of(holding, _facts(session), registry_apart=apart)


def resolved_of(session: Session, standing: Standing, today: date) -> Resolved:
    """Return the state by pseudonym on a day."""
    return resolve(standing, bearers_of(session), today)


def bearers_of(session: Session) -> list[Bearer]:
    """Return the patients whose images are here, each under every id that the hospital has used for them."""
    return [Bearer(one.pseudonym, one.issuer, one.patient_id) for one in known_patients(session)]


def source_of(session: Session) -> tuple[int, datetime | None]:
    """Return the number of the last state and the moment its source was read."""
    source = session.get(ConsentSourceRow, _THE_SOURCE)
    return (source.sequence, source.source_date) if source is not None else (0, None)


def imports_of(session: Session) -> int:
    """Return how many imports there were."""
    return session.scalar(select(func.count()).select_from(ConsentImportRow)) or 0


def _basis(session: Session, source: ConsentSourceRow, now: datetime, rules: ConsentRules) -> str:
    """Return a digest of all that the state by pseudonym is made from; much cheaper than the state."""
    newest = session.scalar(select(func.max(ConsentDecisionRow.id)))
    head = (rules.today(now), rules.registry_asked_apart, source.source_date.isoformat(), newest)
    digest = sha256(repr(head).encode())
    for table, columns in (
        (PatientRow, (PatientRow.pseudonym, PatientRow.issuer, PatientRow.patient_id)),
        (MergeRow, (MergeRow.new_pseudonym, MergeRow.old_issuer, MergeRow.old_id)),
        (
            ConsentPatientRow,
            (
                ConsentPatientRow.issuer,
                ConsentPatientRow.patient_id,
                ConsentPatientRow.birth_date,
                ConsentPatientRow.deceased,
            ),
        ),
    ):
        digest.update(table.__tablename__.encode())
        for row in session.execute(select(*columns).order_by(*columns)):
            digest.update(repr(tuple(row)).encode())
    return f"sha256:{digest.hexdigest()}"


def _stated(session: Session) -> dict[Decision, bool]:
    """Return every decision of the history, with whether the last import stated it."""
    rows = session.execute(
        select(
            ConsentDecisionRow.issuer,
            ConsentDecisionRow.patient_id,
            ConsentDecisionRow.purpose,
            ConsentDecisionRow.decision,
            ConsentDecisionRow.made,
            ConsentDecisionRow.given_by,
            ConsentDecisionRow.valid_from,
            ConsentDecisionRow.valid_until,
            ConsentDecisionRow.stated,
        ).order_by(ConsentDecisionRow.id)
    )
    found: dict[Decision, bool] = {}
    for issuer, patient_id, purpose, word, made, given_by, valid_from, valid_until, stated in rows:
        try:
            decision = Decision(
                PatientId(issuer, patient_id),
                Purpose(purpose),
                WORDS[word],
                _day(made),
                GivenBy(given_by),
                _optional_day(valid_from),
                _optional_day(valid_until),
            )
        except (KeyError, ValueError) as error:
            # Left out it could be an objection that nobody sees.
            raise StateError(
                "consent register: a stored decision is not one of this version",
                hint="Install the version that wrote it, or restore a backup.",
            ) from error
        found[decision] = stated
    return found


def _values(import_id: int, decision: Decision, *, stated: bool) -> dict[str, object]:
    return {
        "import_id": import_id,
        "stated": stated,
        "issuer": decision.patient.issuer,
        "patient_id": decision.patient.patient_id,
        "purpose": decision.purpose.value,
        "decision": decision.word,
        "made": decision.made.isoformat(),
        "given_by": decision.given_by.value,
        "valid_from": _text(decision.valid_from),
        "valid_until": _text(decision.valid_until),
    }


def _keep_facts(session: Session, facts: Mapping[PatientId, PatientFacts]) -> None:
    if not facts:
        return
    known = _facts(session)
    changed = []
    for patient, stated in facts.items():
        before = known.get(patient, PatientFacts())
        # A source that only knows the fact of a death dates it by the day it was read: the first such day stands.
        deaths = [day for day in (stated.deceased, before.deceased) if day is not None]
        after = PatientFacts(stated.birth_date or before.birth_date, min(deaths, default=None))
        if patient not in known or after != before:
            changed.append(
                {
                    "issuer": patient.issuer,
                    "patient_id": patient.patient_id,
                    "birth_date": _text(after.birth_date),
                    "deceased": _text(after.deceased),
                }
            )
    if changed:
        statement = upsert(ConsentPatientRow)
        values = {name: statement.excluded[name] for name in ("birth_date", "deceased")}
        session.execute(statement.on_conflict_do_update(["issuer", "patient_id"], set_=values), changed)


def _facts(session: Session) -> dict[PatientId, PatientFacts]:
    rows = session.execute(
        select(
            ConsentPatientRow.issuer,
            ConsentPatientRow.patient_id,
            ConsentPatientRow.birth_date,
            ConsentPatientRow.deceased,
        )
    )
    return {
        PatientId(issuer, patient_id): PatientFacts(_optional_day(born), _optional_day(died))
        for issuer, patient_id, born, died in rows
    }


def _text(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


@lru_cache(maxsize=65536)
def _day(text: str) -> date:
    return date.fromisoformat(text)


def _optional_day(text: str | None) -> date | None:
    return None if text is None else _day(text)
