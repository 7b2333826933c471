"""The catalogue's use cases: take up what intake handed over, count it, and choose the cases of a cohort.

Reads the handover log (signed by intake) and nothing else of intake's. Invariants: an entry is taken up once, in
order, in one transaction with the position after it; a gap or a bad signature stops the catalogue where it stood;
counts leave rounded to ten; a case is chosen only with consent that is fresh enough.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from policies.errors import NotFoundError, TrustError
from policies.policy import ConsentMode, ConsentPurpose
from policies.profiles import load_profile
from policies.refusals import RefusalCode, Refused
from station.audit.log import AuditLog
from station.catalogue.choosing import choose, no_longer_usable
from station.catalogue.consent import Answer, ConsentState, Decision, check_age
from station.catalogue.query import CatalogueQuery, count
from station.catalogue.recording import not_taken_up, taken_up
from station.catalogue.standing import Standing
from station.catalogue.tables import SINGLE_ROW, CatalogueState, ConsentDecision, Instance
from station.catalogue.takeup import STRICTNESS, Taken, take_up
from station.cohorts import CaseSource, CohortDefinition, rounded
from station.handover import GENESIS, read_handover
from station.storage import Database

_ANSWERS: dict[str, Answer] = {answer: answer for answer in STRICTNESS}
_REMEMBERED = 8
"""Choices of cases that are kept until the catalogue changes: running trains ask for the same ones every few seconds."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one `Catalogue.sync` took up.

    Attributes:
        entries: log entries taken up now.
        instances, clinical_rows, labels: how many they held.
        removed: instances that are gone.
        merged: patients who are now known under another pseudonym.
        consent: whether the consent state changed.
        sequence: the last entry taken up, ever.
    """

    entries: int
    instances: int
    clinical_rows: int
    labels: int
    removed: int
    merged: int
    consent: bool
    sequence: int

    @property
    def taken_away(self) -> bool:
        """Whether something may be used no longer: trains that run must then be asked again (I7)."""
        return self.consent or self.removed > 0 or self.merged > 0


@dataclass(frozen=True, slots=True)
class CollectionCounts:
    """One collection in counts rounded to ten."""

    collection: str
    patients: int
    studies: int
    images: int


class Catalogue:
    """The station's catalogue.

    Args:
        database: the compute database.
        handover: the handover folder.
        public_key: intake's key as compute pinned it (`station.handover.load_public_key`).
        audit: where what is taken up is recorded, in the transaction that takes it up.
    """

    def __init__(
        self,
        database: Database,
        handover: Path,
        public_key: Ed25519PublicKey,
        audit: AuditLog | None = None,
    ) -> None:
        self._audit = audit
        self._database = database
        self._handover = handover
        self._public_key = public_key
        # What `standing` made of each remembered choice; asked before every message of a run.
        self._standing: dict[int, tuple[tuple[CaseSource, ...], Standing]] = {}
        self._chosen: dict[tuple[object, ...], tuple[CaseSource, ...] | Refused] = {}

    def sync(self) -> SyncReport:
        """Take up every new entry of the handover log; doing it again does nothing.

        Raises:
            HandoverError: the log does not verify, has a gap or went back; entries before the fault are taken up.
            TrustError: a consent state is older than the one in force.
            StorageError: the disk is full; what was taken up before stands.
        """
        with self._database.read() as session:
            state = session.get(CatalogueState, SINGLE_ROW)
            sequence, digest = (state.sequence, state.digest) if state else (0, GENESIS)
        taken: list[Taken] = []
        try:
            for entry in read_handover(
                self._handover, self._public_key, sequence, after_digest=digest if sequence else None
            ):
                with self._database.write() as session:
                    taken.append(take_up(session, entry))
                    if self._audit is not None:
                        self._audit.append_in(session, taken_up(entry, taken[-1]))
                sequence = entry.sequence
        except TrustError:
            if self._audit is not None:
                self._audit.thinned.append(not_taken_up(sequence + 1))
            raise
        return SyncReport(
            entries=len(taken),
            instances=sum(one.instances for one in taken),
            clinical_rows=sum(one.clinical_rows for one in taken),
            labels=sum(one.labels for one in taken),
            removed=sum(one.removed for one in taken),
            merged=sum(one.merged for one in taken),
            consent=any(one.consent for one in taken),
            sequence=sequence,
        )

    def collections(self) -> tuple[CollectionCounts, ...]:
        """Return each collection in counts rounded to ten, sorted by name."""
        with self._database.read() as session:
            found = count(session, CatalogueQuery())
        return tuple(
            CollectionCounts(one.collection, rounded(one.patients), rounded(one.studies), rounded(one.images))
            for one in found
        )

    def consent_state(self) -> ConsentState | None:
        """Return the consent state in force, or None where intake handed none over."""
        with self._database.read() as session:
            return read_consent(session)

    def sequence(self) -> int:
        """Return the last handover entry that was taken up; 0 for none."""
        with self._database.read() as session:
            state = session.get(CatalogueState, SINGLE_ROW)
            return 0 if state is None else state.sequence

    def no_longer_usable(
        self,
        files: Collection[str],
        modes: Mapping[str, ConsentMode],
        purposes: Collection[ConsentPurpose] | None = None,
    ) -> frozenset[str]:
        """Return which files no train may be given any more, see `choosing.no_longer_usable`."""
        with self._database.read() as session:
            return no_longer_usable(session, files, read_consent(session), modes, purposes)

    def consent_age(self, now: datetime) -> timedelta | None:
        """Return how old the consent source is, or None where there is none."""
        with self._database.read() as session:
            state = session.get(CatalogueState, SINGLE_ROW)
            source_date = state.consent_source_date if state else None
        return None if source_date is None else now - source_date

    def cases(
        self,
        definition: CohortDefinition,
        offered: Mapping[str, ConsentMode],
        consent_limit: timedelta,
        now: datetime,
    ) -> tuple[CaseSource, ...] | Refused:
        """Choose the cases of a cohort.

        1. The consent register is there and fresh enough.
        2. A collection counts if the policy grants it, the hospital offers it, and the policy accepts the way its
           patients were asked.
        3. A patient counts if `consenting`.
        4. The definition's minimal-dataset profile is one that this version knows.
        5. An image counts by modality and body part; its study's clinical row under the definition's profile, if
           there is one, gives label and fields.

        Args:
            definition: what the policy grants and the train asks for.
            offered: the collections the hospital opens to this requester (`Admission.collections`), with how their
                patients were asked (`StationSettings.consent_modes`).
            consent_limit: how old the consent source may be.
            now: the station's clock.

        Returns:
            The cases sorted by key, possibly none (the freeze then refuses for too few patients).
        """
        with self._database.read() as session:
            if refused := check_age(read_consent(session, decisions=False), consent_limit, now):
                return refused
            usable = {
                name: mode
                for name, mode in offered.items()
                if name in definition.collections and mode in definition.consent_modes
            }
            if not usable:
                return Refused.because(
                    RefusalCode.HOSPITAL_COLLECTION, "no collection is both granted and offered"
                )
            try:
                load_profile(definition.profile)
            except NotFoundError:
                return Refused.because(
                    RefusalCode.DATA_FIELDS, f"profile {definition.profile} is not known here"
                )
            return self._choose(session, definition, usable)

    def _choose(
        self,
        session: Session,
        definition: CohortDefinition,
        usable: Mapping[str, ConsentMode],
    ) -> tuple[CaseSource, ...] | Refused:
        """Choose, or return what was chosen before from the very same catalogue."""
        state = session.get(CatalogueState, SINGLE_ROW)
        digest = state.digest if state else GENESIS
        key = (digest, definition.model_dump_json(), tuple(sorted(usable.items())))
        if (known := self._chosen.get(key)) is not None:
            return known
        consent = read_consent(session)
        if consent is None:
            return Refused.because(RefusalCode.CONSENT_UNKNOWN)
        chosen = choose(session, definition, usable, consent, self._handover)
        remembered = {other: cases for other, cases in self._chosen.items() if other[0] == digest}
        self._chosen = dict([*remembered.items(), (key, chosen)][-_REMEMBERED:])
        return chosen

    def consenting_patients(
        self,
        definition: CohortDefinition,
        offered: Mapping[str, ConsentMode],
        consent_limit: timedelta,
        now: datetime,
    ) -> frozenset[str] | Refused:
        """Return the patients that `cases` would give."""
        standing = self.standing(definition, offered, consent_limit, now)
        return standing if isinstance(standing, Refused) else standing.patients

    def standing(
        self,
        definition: CohortDefinition,
        offered: Mapping[str, ConsentMode],
        consent_limit: timedelta,
        now: datetime,
    ) -> Standing | Refused:
        """Return what `cases` would give, for rules that ask again while a train runs (I7)."""
        chosen = self.cases(definition, offered, consent_limit, now)
        if isinstance(chosen, Refused):
            return chosen
        known = self._standing.get(id(chosen))
        if known is None or known[0] is not chosen:
            known = (chosen, Standing.of(chosen))
            kept = {id(cases) for cases in self._chosen.values()}
            self._standing = {key: one for key, one in self._standing.items() if key in kept}
            self._standing[id(chosen)] = known
        return known[1]

    def without_data(self, patients: frozenset[str]) -> frozenset[str]:
        """Return those of them who have no instance here: merged into another, or removed."""
        with self._database.read() as session:
            return frozenset(
                patient
                for patient in patients
                if session.scalar(select(Instance.patient).where(Instance.patient == patient).limit(1))
                is None
            )


def read_consent(session: Session, *, decisions: bool = True) -> ConsentState | None:
    """Return the consent state in force, with or without every patient's decisions."""
    state = session.get(CatalogueState, SINGLE_ROW)
    if state is None or state.consent_sequence is None or state.consent_source_date is None:
        return None
    if not decisions:
        return ConsentState(state.consent_sequence, state.consent_source_date)
    # Columns, not entities: there may be several hundred thousand.
    rows = session.execute(
        select(
            ConsentDecision.patient, ConsentDecision.purpose, ConsentDecision.decision, ConsentDecision.date
        ).order_by(ConsentDecision.patient, ConsentDecision.purpose)
    )
    found: dict[str, tuple[Decision, ...]] = {}
    # Most patients decided alike on the same day: one value for all of them.
    seen: dict[tuple[str, str, str], Decision] = {}
    for patient, purpose, word, made in rows:
        decision = seen.get((purpose, word, made))
        if decision is None:
            # An answer this version does not know is read as an objection.
            answer = _ANSWERS.get(word, "objection")
            decision = seen[purpose, word, made] = Decision(purpose, answer, made)
        found[patient] = (*found.get(patient, ()), decision)
    return ConsentState(state.consent_sequence, state.consent_source_date, found)
