"""The catalogue's use cases: take up what intake handed over, count it, and choose the cases of a cohort.

Reads the handover log (signed by intake) and nothing else of intake's. Invariants: an entry is taken up once, in
order, in one transaction with the position after it; a gap or a bad signature stops the catalogue where it stood;
counts leave rounded to ten; a case is chosen only with consent that is fresh enough.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from policies.errors import NotFoundError, TrustError
from policies.policy import ConsentMode
from policies.profiles import load_profile
from policies.refusals import RefusalCode, Refused
from station.catalogue.choosing import choose
from station.catalogue.consent import Answer, ConsentState, Decision, check_age
from station.catalogue.tables import SINGLE_ROW, CatalogueState, Clinical, ConsentDecision, Instance
from station.cohorts import CaseSource, CohortDefinition, rounded
from station.handover import (
    GENESIS,
    ClinicalContent,
    ConsentContent,
    ConsentRecord,
    InstancesContent,
    VerifiedEntry,
    read_handover,
)
from station.storage import Database

_STRICTNESS: dict[Answer, int] = {"consent": 0, "none": 1, "objection": 2}
_ANSWERS: dict[str, Answer] = {answer: answer for answer in _STRICTNESS}


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one `Catalogue.sync` took up.

    Attributes:
        entries: log entries taken up now.
        instances, clinical_rows: how many they held.
        consent: whether the consent state changed; trains that run must then be asked again (I7).
        sequence: the last entry taken up, ever.
    """

    entries: int
    instances: int
    clinical_rows: int
    consent: bool
    sequence: int


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
    """

    def __init__(self, database: Database, handover: Path, public_key: Ed25519PublicKey) -> None:
        self._database = database
        self._handover = handover
        self._public_key = public_key

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
        entries = instances = clinical_rows = 0
        consent = False
        for entry in read_handover(
            self._handover, self._public_key, sequence, after_digest=digest if sequence else None
        ):
            with self._database.write() as session:
                _take_up(session, entry)
            sequence = entry.sequence
            entries += 1
            match entry.content:
                case InstancesContent():
                    instances += len(entry.content.instances)
                case ClinicalContent():
                    clinical_rows += len(entry.content.rows)
                case ConsentContent():
                    consent = True
        return SyncReport(entries, instances, clinical_rows, consent, sequence)

    def collections(self) -> tuple[CollectionCounts, ...]:
        """Return each collection in counts rounded to ten, sorted by name."""
        query = (
            select(
                Instance.collection,
                func.count(func.distinct(Instance.patient)),
                func.count(func.distinct(Instance.study_uid)),
                func.count(),
            )
            .group_by(Instance.collection)
            .order_by(Instance.collection)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        return tuple(
            CollectionCounts(name, rounded(patients), rounded(studies), rounded(images))
            for name, patients, studies, images in rows
        )

    def consent_state(self) -> ConsentState | None:
        """Return the consent state in force, or None where intake handed none over."""
        with self._database.read() as session:
            return _consent_state(session)

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
            state = _consent_state(session)
            if (refused := check_age(state, consent_limit, now)) or state is None:
                return refused or Refused.because(RefusalCode.CONSENT_UNKNOWN)
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
            return choose(session, definition, usable, state, self._handover)

    def consenting_patients(
        self,
        definition: CohortDefinition,
        offered: Mapping[str, ConsentMode],
        consent_limit: timedelta,
        now: datetime,
    ) -> frozenset[str] | Refused:
        """Return the patients that `cases` would give, for rules that ask again while a train runs (I7)."""
        chosen = self.cases(definition, offered, consent_limit, now)
        return chosen if isinstance(chosen, Refused) else frozenset(case.patient for case in chosen)


def _take_up(session: Session, entry: VerifiedEntry) -> None:
    state = session.get(CatalogueState, SINGLE_ROW)
    if state is None:
        state = CatalogueState(
            id=SINGLE_ROW, sequence=0, digest=GENESIS, consent_sequence=None, consent_source_date=None
        )
        session.add(state)
    if entry.sequence != state.sequence + 1:
        raise TrustError(f"catalogue: handover entry {entry.sequence} does not follow {state.sequence}")
    match entry.content:
        case InstancesContent():
            _take_instances(session, entry.content)
        case ClinicalContent():
            _take_clinical(session, entry.content)
        case ConsentContent():
            _take_consent(session, entry.content, state)
    state.sequence, state.digest = entry.sequence, entry.digest


def _take_instances(session: Session, content: InstancesContent) -> None:
    for record in content.instances:
        # A later record of the same instance replaces the earlier: intake pseudonymised it again.
        session.merge(Instance(**record.model_dump(exclude={"acquisition"})))


def _take_clinical(session: Session, content: ClinicalContent) -> None:
    for row in content.rows:
        session.merge(
            Clinical(
                collection=content.collection,
                profile=content.profile,
                patient=row.patient,
                study_uid=row.study_uid,
                fields=dict(row.values),
            )
        )


def _take_consent(session: Session, content: ConsentContent, state: CatalogueState) -> None:
    if state.consent_sequence is not None and content.consent_sequence <= state.consent_sequence:
        raise TrustError("catalogue: the handover log brings an older consent state than the one in force")
    session.execute(delete(ConsentDecision))
    # Two records for one patient and purpose: the one that permits less stands.
    strictest: dict[tuple[str, str], ConsentRecord] = {}
    for record in content.records:
        key = (record.patient, record.purpose)
        earlier = strictest.get(key)
        if earlier is None or _STRICTNESS[record.decision] > _STRICTNESS[earlier.decision]:
            strictest[key] = record
    session.add_all(ConsentDecision(**record.model_dump()) for record in strictest.values())
    state.consent_sequence, state.consent_source_date = content.consent_sequence, content.source_date


def _consent_state(session: Session) -> ConsentState | None:
    state = session.get(CatalogueState, SINGLE_ROW)
    if state is None or state.consent_sequence is None or state.consent_source_date is None:
        return None
    decisions: dict[str, tuple[Decision, ...]] = {}
    for row in session.scalars(
        select(ConsentDecision).order_by(ConsentDecision.patient, ConsentDecision.purpose)
    ):
        # An answer this version does not know is read as an objection.
        answer = _ANSWERS.get(row.decision, "objection")
        decisions[row.patient] = (*decisions.get(row.patient, ()), Decision(row.purpose, answer, row.date))
    return ConsentState(state.consent_sequence, state.consent_source_date, decisions)
