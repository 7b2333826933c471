"""Removals: instances that are used no longer, told to compute, and kept from coming back unseen.

What is removed is gone from intake's list of instances and stands among the removed, by its pseudonymous UID. One that comes
again waits in quarantine for a person. The pseudonymised file stays until its term is over (`retention`): compute takes
removals up by itself, and a cohort that is being frozen may still read the file.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from station.handover import Removal, RemovedContent
from station.intake import outbox
from station.intake.audit import IntakeEvent, record
from station.intake.books import Books
from station.intake.schema import InstanceRow, RemovedRow, StudyRow

RemovalReason = Literal["rejected", "deleted", "quarantined", "retention"]
REASONS: tuple[str, ...] = get_args(RemovalReason)
EVERYWHERE = "*"
_PER_ENTRY = 2000
_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class HeldStudy:
    """What is held of one study in one collection, for comparing with its source.

    Attributes:
        study_uid: pseudonymous, as the instances'; `Intake.remap_uid` makes it from the original.
        accession: the original, which the source knows it by; may be empty.
    """

    study_uid: str
    accession: str
    sop_instance_uids: frozenset[str]


def remove(
    books: Books, sop_instance_uids: Iterable[str], reason: RemovalReason, *, expected: bool = False
) -> int:
    """Remove instances by their pseudonymous UIDs from every collection, in one transaction; returns how many.

    Args:
        books: intake's books.
        sop_instance_uids: pseudonymous; those that are not held are passed over.
        reason: why, as compute is told.
        expected: whether one that is not held may still come (a rejection can overtake its instance); it is then
            kept out.
    """
    uids = sorted(set(sop_instance_uids))
    removed = 0
    with books.decide() as session:
        for start in range(0, len(uids), _PER_QUERY):
            part = uids[start : start + _PER_QUERY]
            rows = list(session.scalars(select(InstanceRow).where(InstanceRow.sop_instance_uid.in_(part))))
            removed += take_out(session, books, rows, reason)
            if expected:
                _keep_out(session, books, part, reason)
    return removed


def take_out(session: Session, books: Books, rows: list[InstanceRow], reason: RemovalReason) -> int:
    """Remove these instances within the caller's transaction; returns how many."""
    now = books.clock()
    told = [row for row in rows if row.outbox is not None]
    for row in rows:
        _remember(session, books, (row.collection, row.sop_instance_uid), reason, row.file)
        session.delete(row)
    session.flush()
    if rows:
        fields: dict[str, str | int] = {"reason": reason, "count": len(rows)}
        record(session, IntakeEvent.INSTANCES_REMOVED, fields, now=now)
    for start in range(0, len(told), _PER_ENTRY):
        removals = tuple(
            Removal(collection=row.collection, sop_instance_uid=row.sop_instance_uid, reason=reason)
            for row in told[start : start + _PER_ENTRY]
        )
        outbox.enqueue(session, RemovedContent(removals=removals), len(removals), now=now)
    return len(rows)


def is_removed(session: Session, collection: str, sop_instance_uid: str) -> bool:
    """Tell whether an instance was removed before, here or at its source."""
    return any(session.get(RemovedRow, (place, sop_instance_uid)) for place in (collection, EVERYWHERE))


def let_back(session: Session, collection: str, sop_instance_uid: str) -> None:
    """Forget a removal: a person has released the instance."""
    for place in (collection, EVERYWHERE):
        row = session.get(RemovedRow, (place, sop_instance_uid))
        if row is not None:
            session.delete(row)
    session.flush()


def held(session: Session, collection: str) -> list[HeldStudy]:
    """Return what a collection holds, study by study."""
    rows = session.execute(
        select(InstanceRow.study_uid, StudyRow.accession, InstanceRow.sop_instance_uid)
        .join(StudyRow, StudyRow.study_uid == InstanceRow.study_uid)
        .where(InstanceRow.collection == collection)
        .order_by(InstanceRow.study_uid)
    )
    studies: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for study_uid, accession, sop_instance_uid in rows:
        studies[study_uid, accession].add(sop_instance_uid)
    return [HeldStudy(study, accession, frozenset(uids)) for (study, accession), uids in studies.items()]


def _keep_out(session: Session, books: Books, uids: list[str], reason: RemovalReason) -> None:
    known = set(
        session.scalars(select(RemovedRow.sop_instance_uid).where(RemovedRow.sop_instance_uid.in_(uids)))
    )
    for uid in uids:
        if uid not in known:
            _remember(session, books, (EVERYWHERE, uid), reason, None)


def _remember(session: Session, books: Books, place: tuple[str, str], reason: str, file: str | None) -> None:
    row = session.get(RemovedRow, place)
    if row is None:
        collection, uid = place
        session.add(
            RemovedRow(
                collection=collection,
                sop_instance_uid=uid,
                reason=reason,
                file=file,
                removed_at=books.clock(),
            )
        )
    else:
        row.reason, row.file, row.removed_at = reason, file, books.clock()
