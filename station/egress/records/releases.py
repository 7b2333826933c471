"""Recorded releases: each (order, round, stage) is answered once, and a repeat with the same bytes (invariant I8).

`ReleaseStore.record` is one write transaction: the last look at consent, policy and revocation (invariant I7), the
counter of the policy's releases, the audit event, the ledger entry and the reply itself become durable together or
not at all. The arrays lie in a folder beside the database, put in place inside that transaction and named by what they
answer; a file whose transaction never committed is removed at the next start (`sweep`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import digest_of
from policies.errors import StateError, StorageError
from policies.order import Stage
from policies.refusals import RefusalCode, Refused
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog, system_clock
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType
from station.egress.records.tables import CounterRow, ReleaseRow
from station.egress.release import Release
from station.egress.review.tables import ReviewRow
from station.storage.database import Database
from station.storage.files import move_durably, remove_durably, storage_fault

RELEASES_COUNTER: Final = "releases"
_ACTOR: Final = "station:compute"


@dataclass(frozen=True, slots=True)
class ReleaseTerms:
    """What a release is held to in the transaction that records it.

    Attributes:
        policy_id: whose counter it uses.
        maximum_releases: the policy's, at this station over all runs.
        on_behalf_of: the requester, as the audit names actors.
        purpose: the policy's purpose code.
        check: looks at consent, policy and revocation once more, inside the transaction; a refusal ends it.
        also: what becomes durable with the release, inside the transaction too; not asked where it stood before.
    """

    policy_id: str
    maximum_releases: int
    on_behalf_of: str | None
    purpose: str | None
    check: Callable[[Session], Refused | None]
    also: Callable[[Session], None] | None = None


@dataclass(frozen=True, slots=True)
class ChainDigests:
    """The ends of both chains while a reply is made: the audit already holds the release, the ledger not yet."""

    audit: str
    ledger: str


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A recorded answer.

    Attributes:
        reply: the reply's bytes, as they leave every time; empty where it was purged.
        arrays: the file of deltas, or None.
        purged: when reply and arrays went, because the hospital's term was over; None while they are there.
    """

    order_digest: str
    round: int
    stage: Stage
    policy_id: str
    reply: bytes
    arrays: Path | None
    arrays_digest: str | None
    arrays_size: int | None
    ledger_seq: int
    recorded: datetime
    purged: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer that stands; `repeated` when it stood before."""

    release: StoredRelease
    repeated: bool


def arrays_name(order_digest: str, round_: int, stage: str) -> str:
    """Return the name of a release's file of arrays."""
    return f"{order_digest.removeprefix('sha256:')}-{round_}-{stage}.safetensors"


def sweep_arrays(database: Database, folder: Path) -> int:
    """Remove files of arrays that no recorded release names, because it was never recorded or is purged; safe at any time.

    Returns:
        How many files were removed.

    Raises:
        StorageError: a file cannot be removed; the others are.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return 0
    named = select(ReleaseRow.order_digest, ReleaseRow.round, ReleaseRow.stage).where(
        ReleaseRow.purged.is_(None)
    )
    count, fault = 0, None
    # Inside a write transaction: none is being recorded meanwhile.
    with database.write() as session:
        kept = {arrays_name(*row) for row in session.execute(named)}
        for path in sorted(folder.iterdir()):
            if path.name in kept:
                continue
            try:
                remove_durably(path)
                count += 1
            except StorageError as error:
                fault = error
    if fault is not None:
        raise fault
    return count


class ReleaseStore:
    """Records releases and finds them again.

    Args:
        database: the station's compute database.
        audit: the station's audit log, over the same database.
        ledger: the egress ledger, over the same database.
        folder: for the arrays; made when missing, the station's alone, on one file system with the guard's output.
        clock: returns the moment it is.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        ledger: EgressLedger,
        folder: Path,
        clock: Callable[[], datetime] = system_clock,
    ) -> None:
        self._database = database
        self._audit = audit
        self._ledger = ledger
        self._folder = folder
        self._clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise storage_fault(error, folder.name) from error

    def find(self, order_digest: str, round_: int, stage: Stage) -> StoredRelease | None:
        """Return the recorded answer, or None where there is none.

        Raises:
            StateError: its arrays are gone or of another size.
        """
        with self._database.read() as session:
            row = session.get(ReleaseRow, (order_digest, round_, stage))
            return None if row is None else self._whole(row)

    def list(self, order_digest: str | None = None) -> list[StoredRelease]:
        """Return recorded answers, oldest first; of one order, or of all. Their arrays are not looked at."""
        query = select(ReleaseRow).order_by(ReleaseRow.ledger_seq)
        if order_digest is not None:
            query = query.where(ReleaseRow.order_digest == order_digest)
        with self._database.read() as session:
            return [self._stored(row) for row in session.scalars(query)]

    def answers_of(self, order_digest: str) -> int:
        """Return how many messages of an order have an answer that stands: recorded, waiting for a person, or withheld by one."""
        recorded = select(func.count()).select_from(ReleaseRow).where(ReleaseRow.order_digest == order_digest)
        unrecorded = (
            select(func.count())
            .select_from(ReviewRow)
            .where(ReviewRow.order_digest == order_digest, ReviewRow.state.in_(("waiting", "withheld")))
        )
        with self._database.read() as session:
            return session.scalars(recorded).one() + session.scalars(unrecorded).one()

    def capacity_bits(self, stored: StoredRelease) -> int | None:
        """Return the most that a release could carry, as the ledger says; None where it was not counted yet."""
        entry = self._ledger.entry(stored.ledger_seq)
        return None if entry is None else entry.capacity_bits

    def releases_used(self, policy_id: str) -> int:
        """Return how many releases a policy has used here, over all its runs and versions."""
        with self._database.read() as session:
            return self.releases_used_in(session, policy_id)

    def releases_used_in(self, session: Session, policy_id: str) -> int:
        """Count as `releases_used` does, inside the caller's transaction."""
        row = session.get(CounterRow, (RELEASES_COUNTER, policy_id))
        return 0 if row is None else row.value

    def record(
        self, release: Release, terms: ReleaseTerms, make_reply: Callable[[ChainDigests], bytes]
    ) -> Recorded | Refused:
        """Make a release the one answer to its (order, round, stage).

        1. An answer that stands is returned as it is, and the new one dropped.
        2. `terms.check` and the policy's number of releases permit it, or it is refused and audited.
        3. Counter, audit event, reply, ledger entry and arrays become durable together.

        Args:
            release: from the guard.
            terms: what it is held to.
            make_reply: makes the reply's bytes, given the ends of the chains.

        Raises:
            StorageError: nothing was recorded; the release must not leave.
            IntegrityError: the order was never recorded at this station.
        """
        target = self._path(release.order_digest, release.round, release.stage)
        placed = False
        with self._database.write() as session:
            if row := session.get(ReleaseRow, (release.order_digest, release.round, release.stage)):
                outcome: Recorded | Refused = Recorded(self._whole(row), repeated=True)
            elif refused := self._look_again(session, release, terms):
                outcome = refused
            else:
                if release.arrays is not None:
                    # Not undone when the transaction fails: the next attempt writes the same name, `sweep` the rest.
                    move_durably(release.arrays.path, target)
                    placed = True
                outcome = Recorded(self._insert(session, release, terms, make_reply), repeated=False)
        if release.arrays is not None and not placed:
            release.arrays.path.unlink(missing_ok=True)
        return outcome

    def entry_of(self, stored: StoredRelease) -> LedgerEntry:
        """Return the entry under which a release left first: its type, digest, size, rules and bits.

        Raises:
            StateError: the ledger does not hold it.
        """
        entry = self._ledger.entry(stored.ledger_seq)
        if entry is None:
            raise StateError("a recorded release has no entry in the ledger")
        return entry

    def sweep(self) -> int:
        """Remove arrays that no recorded release names, see `sweep_arrays`; returns how many files."""
        return sweep_arrays(self._database, self._folder)

    def _look_again(self, session: Session, release: Release, terms: ReleaseTerms) -> Refused | None:
        refused = terms.check(session)
        if refused is None and self.releases_used_in(session, terms.policy_id) >= terms.maximum_releases:
            refused = Refused.because(RefusalCode.BUDGET_RELEASES, "the policy's releases are used up")
        if refused is not None:
            codes = tuple(reason.code.value for reason in refused.reasons)
            self._audit.append_in(
                session, self._event(release, terms, AuditEvent.RELEASE_REFUSED, outcome_codes=codes)
            )
        return refused

    def _insert(
        self,
        session: Session,
        release: Release,
        terms: ReleaseTerms,
        make_reply: Callable[[ChainDigests], bytes],
    ) -> StoredRelease:
        self._count(session, terms.policy_id)
        self._audit.append_in(session, self._event(release, terms, AuditEvent.RELEASE_RECORDED))
        heads = ChainDigests(self._audit.head_in(session).digest, self._ledger.head_in(session).digest)
        reply = make_reply(heads)
        arrays = release.arrays
        entry = LedgerEntry(
            type=MessageType.RELEASE,
            digest=digest_of(reply),
            size=len(reply),
            order_digest=release.order_digest,
            round=release.round,
            stage=release.stage,
            rules_digest=release.rules_digest,
            arrays_digest=None if arrays is None else arrays.digest,
            arrays_size=None if arrays is None else arrays.size,
            capacity_bits=release.capacity_bits,
        )
        row = ReleaseRow(
            order_digest=release.order_digest,
            round=release.round,
            stage=release.stage,
            policy_id=terms.policy_id,
            reply=reply,
            arrays_digest=entry.arrays_digest,
            arrays_size=entry.arrays_size,
            ledger_seq=self._ledger.append_in(session, entry).seq,
            recorded=self._clock(),
            examples=release.num_examples,
        )
        session.add(row)
        session.flush()
        if terms.also is not None:
            terms.also(session)
        return self._stored(row)

    def _count(self, session: Session, policy_id: str) -> None:
        row = session.get(CounterRow, (RELEASES_COUNTER, policy_id))
        if row is None:
            session.add(CounterRow(name=RELEASES_COUNTER, scope=policy_id, value=1))
        else:
            row.value += 1
        session.flush()

    def _event(
        self, release: Release, terms: ReleaseTerms, event: AuditEvent, outcome_codes: tuple[str, ...] = ()
    ) -> AuditRecord:
        arrays = release.arrays
        return AuditRecord(
            event=event,
            actor=_ACTOR,
            outcome="refused" if outcome_codes else "success",
            on_behalf_of=terms.on_behalf_of,
            purpose=terms.purpose,
            object=release.order_digest,
            codes=outcome_codes or tuple(sorted({item.code.value for item in release.suppressed})),
            numbers={
                "round": release.round,
                "metrics": len(release.metrics),
                "tables": len(release.tables),
                "arrays_bytes": 0 if arrays is None else arrays.size,
                "capacity_bits": release.capacity_bits,
            },
            detail=f"stage {release.stage} under policy {terms.policy_id}",
        )

    def _path(self, order_digest: str, round_: int, stage: str) -> Path:
        return self._folder / arrays_name(order_digest, round_, stage)

    def _whole(self, row: ReleaseRow) -> StoredRelease:
        stored = self._stored(row)
        if stored.arrays is not None and (
            not stored.arrays.is_file() or stored.arrays.stat().st_size != stored.arrays_size
        ):
            raise StateError(
                "a recorded release has lost its arrays",
                hint="Restore the station's releases folder from a backup.",
            )
        return stored

    def _stored(self, row: ReleaseRow) -> StoredRelease:
        there = row.arrays_digest is not None and row.purged is None
        arrays = self._path(row.order_digest, row.round, row.stage) if there else None
        return StoredRelease(
            order_digest=row.order_digest,
            round=row.round,
            stage=_stage(row.stage),
            policy_id=row.policy_id,
            reply=row.reply,
            arrays=arrays,
            arrays_digest=row.arrays_digest,
            arrays_size=row.arrays_size,
            ledger_seq=row.ledger_seq,
            recorded=row.recorded,
            purged=row.purged,
        )


def _stage(value: str) -> Stage:
    stages: dict[str, Stage] = {"train": "train", "evaluate": "evaluate", "analyse": "analyse"}
    if value not in stages:
        raise StateError("a recorded release names no stage")
    return stages[value]
