"""One entry of the handover log into the catalogue's tables, inside the caller's transaction.

Invariants: an entry follows the last one or is refused; a pseudonym that was merged is rewritten in what stands and in
every later entry; of two answers that meet, the one that permits less stands.
"""

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from policies.errors import TrustError
from station.catalogue.consent import Answer
from station.catalogue.series_counts import recount
from station.catalogue.tables import (
    SINGLE_ROW,
    CatalogueState,
    Clinical,
    ConsentDecision,
    Instance,
    Label,
    MergedPatient,
    RemovedCount,
    SeriesCount,
)
from station.handover import (
    GENESIS,
    ClinicalContent,
    ConsentContent,
    ConsentRecord,
    InstancesContent,
    LabelsContent,
    Merge,
    MergedContent,
    RemovedContent,
    VerifiedEntry,
)

STRICTNESS: dict[Answer, int] = {"consent": 0, "none": 1, "objection": 2}
"""How much less an answer permits; one that this version does not know permits nothing."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one entry brought, and took.

    Attributes:
        instances, clinical_rows, labels: how many it held.
        removed: instances that were there and are gone.
        merged: patients who are now known under another pseudonym.
        consent: whether it is a consent state.
    """

    instances: int = 0
    clinical_rows: int = 0
    labels: int = 0
    removed: int = 0
    merged: int = 0
    consent: bool = False


def take_up(session: Session, entry: VerifiedEntry) -> Taken:
    """Take up the entry that follows the last one.

    Raises:
        TrustError: it does not follow, or brings an older consent state than the one in force.
    """
    state = session.get(CatalogueState, SINGLE_ROW)
    if state is None:
        state = CatalogueState(
            id=SINGLE_ROW, sequence=0, digest=GENESIS, consent_sequence=None, consent_source_date=None
        )
        session.add(state)
    if entry.sequence != state.sequence + 1:
        raise TrustError(f"catalogue: handover entry {entry.sequence} does not follow {state.sequence}")
    aliases = {row.patient: row.into for row in session.scalars(select(MergedPatient))}
    match entry.content:
        case InstancesContent():
            taken = _instances(session, entry.content, aliases)
        case ClinicalContent():
            taken = _clinical(session, entry.content, aliases)
        case ConsentContent():
            taken = _consent(session, entry.content, aliases, state)
        case LabelsContent():
            taken = _labels(session, entry.content, aliases)
        case RemovedContent():
            taken = _removals(session, entry.content)
        case MergedContent():
            taken = Taken(merged=sum(_merge(session, merge) for merge in entry.content.merges))
    state.sequence, state.digest = entry.sequence, entry.digest
    return taken


def _instances(session: Session, content: InstancesContent, aliases: dict[str, str]) -> Taken:
    touched = {(record.collection, record.series_uid) for record in content.instances}
    for record in content.instances:
        earlier = session.get(Instance, (record.collection, record.sop_instance_uid))
        if earlier is not None:
            touched.add((earlier.collection, earlier.series_uid))
        values = record.model_dump(exclude={"acquisition", "patient"})
        acquisition = record.acquisition.model_dump(exclude={"image_type"})
        # A later record of the same instance replaces the earlier: intake pseudonymised it again.
        session.merge(
            Instance(
                **values,
                **acquisition,
                patient=aliases.get(record.patient, record.patient),
                image_type="\\".join(record.acquisition.image_type),
            )
        )
    recount(session, touched)
    return Taken(instances=len(content.instances))


def _clinical(session: Session, content: ClinicalContent, aliases: dict[str, str]) -> Taken:
    for row in content.rows:
        session.merge(
            Clinical(
                collection=content.collection,
                profile=content.profile,
                patient=aliases.get(row.patient, row.patient),
                study_uid=row.study_uid,
                fields=dict(row.values),
            )
        )
    return Taken(clinical_rows=len(content.rows))


def _labels(session: Session, content: LabelsContent, aliases: dict[str, str]) -> Taken:
    for record in content.labels:
        session.merge(
            Label(
                **record.model_dump(exclude={"names", "patient"}),
                patient=aliases.get(record.patient, record.patient),
                names=" ".join(record.names),
            )
        )
    return Taken(labels=len(content.labels))


def _consent(
    session: Session, content: ConsentContent, aliases: dict[str, str], state: CatalogueState
) -> Taken:
    if state.consent_sequence is not None and content.consent_sequence <= state.consent_sequence:
        raise TrustError("catalogue: the handover log brings an older consent state than the one in force")
    session.execute(delete(ConsentDecision))
    strictest: dict[tuple[str, str], ConsentRecord] = {}
    for record in content.records:
        key = (aliases.get(record.patient, record.patient), record.purpose)
        earlier = strictest.get(key)
        if earlier is None or STRICTNESS[record.decision] > STRICTNESS[earlier.decision]:
            strictest[key] = record
    rows = [
        {"patient": patient, "purpose": purpose, "decision": record.decision, "date": record.date}
        for (patient, purpose), record in strictest.items()
    ]
    if rows:
        session.execute(insert(ConsentDecision), rows)
    state.consent_sequence, state.consent_source_date = content.consent_sequence, content.source_date
    return Taken(consent=True)


def _removals(session: Session, content: RemovedContent) -> Taken:
    removed = 0
    touched: set[tuple[str, str]] = set()
    for removal in content.removals:
        instance = session.get(Instance, (removal.collection, removal.sop_instance_uid))
        if instance is None:
            continue
        touched.add((instance.collection, instance.series_uid))
        session.delete(instance)
        count = session.get(RemovedCount, (removal.collection, removal.reason))
        if count is None:
            count = RemovedCount(collection=removal.collection, reason=removal.reason, instances=0)
            session.add(count)
        count.instances += 1
        removed += 1
    recount(session, touched)
    for collection, series_uid in touched:
        left = select(func.count()).where(
            Instance.collection == collection, Instance.series_uid == series_uid
        )
        if session.scalar(left) == 0:
            # A mask on images that are gone is of use to nobody, and is made of them.
            session.execute(
                delete(Label).where(Label.collection == collection, Label.series_uid == series_uid)
            )
    return Taken(removed=removed)


def _merge(session: Session, merge: Merge) -> bool:
    """Rewrite one pseudonym everywhere; False where it is the other one already.

    Who was one stays one: what is merged are all names that either is known by, so no later merge takes a name away from the patient
    who was charged, or who objected, under it. Each name stands for the same one, which is nobody else's.
    """
    patient, into = _known_as(session, merge.patient), _known_as(session, merge.into)
    if patient == into:
        if merge.patient != patient or merge.into == into:
            return False
        # The other way round: the same names, of which the other one stands now.
        into = merge.into
        session.execute(delete(MergedPatient).where(MergedPatient.patient == into))
    session.execute(update(MergedPatient).where(MergedPatient.into == patient).values(into=into))
    session.merge(MergedPatient(patient=patient, into=into))
    for table in (Instance, Label, SeriesCount):
        session.execute(update(table).where(table.patient == patient).values(patient=into))
    _merge_clinical(session, patient, into)
    _merge_consent(session, patient, into)
    session.flush()
    return True


def _known_as(session: Session, patient: str) -> str:
    merged = session.get(MergedPatient, patient)
    return patient if merged is None else merged.into


def _merge_clinical(session: Session, patient: str, into: str) -> None:
    for row in session.scalars(select(Clinical).where(Clinical.patient == patient)).all():
        standing = session.get(Clinical, (row.collection, row.profile, into, row.study_uid))
        if standing is None:
            session.add(
                Clinical(
                    collection=row.collection,
                    profile=row.profile,
                    patient=into,
                    study_uid=row.study_uid,
                    fields=dict(row.fields),
                )
            )
        else:
            known = {name: value for name, value in standing.fields.items() if value is not None}
            standing.fields = {**standing.fields, **row.fields, **known}
        session.delete(row)


def _merge_consent(session: Session, patient: str, into: str) -> None:
    for row in session.scalars(select(ConsentDecision).where(ConsentDecision.patient == patient)).all():
        standing = session.get(ConsentDecision, (into, row.purpose))
        if standing is None:
            session.add(
                ConsentDecision(patient=into, purpose=row.purpose, decision=row.decision, date=row.date)
            )
        elif _strictness(row.decision) > _strictness(standing.decision):
            standing.decision, standing.date = row.decision, row.date
        session.delete(row)


def _strictness(decision: str) -> int:
    known = [strictness for answer, strictness in STRICTNESS.items() if answer == decision]
    return known[0] if known else max(STRICTNESS.values()) + 1
