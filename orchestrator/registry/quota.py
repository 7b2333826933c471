"""How much of the disk one party's uploads may take, in all: what is kept for it, what it left unfinished, what is on its way.

Counted from what is there (files, grants, rows), not from a number that could drift: whatever crashes or is removed, the count is
right again. What is on its way counts as the whole that was announced, so that uploads at once do not pass together. A researcher's
are the blobs they sent and the documents they gave (bundles, manifests, requests); bytes that two sent count for both. A station's are
the updates of runs that are under way: they go when the round is averaged, or the run is over.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from sqlalchemy import func, select

from orchestrator.registry.access import Principal, Role, owner_scope
from orchestrator.registry.blobs import BlobStore
from orchestrator.storage import BlobGrant, BundleRow, Database, OciManifestRow, RequestRow
from policies.documents import Digest
from policies.errors import RefusedError

QUOTA_EXCEEDED: Final = "QUOTA_EXCEEDED"
_MIB: Final = 1 << 20
_HINTS: Final = {
    Role.RESEARCHER: "`pht-train storage list` shows what takes it, `pht-train storage delete` frees it; or ask the operator for more.",
    Role.STATION: "Updates go when their round is averaged or their run is over; or ask the operator for more.",
}


class QuotaError(RefusedError):
    """An upload would take a party over its quota.

    Attributes:
        facts: `limit_bytes`, `used_bytes` and `asked_bytes`, for a program to read.
    """

    def __init__(self, principal: Principal, limit: int, used: int, asked: int) -> None:
        setting = f"limits.{principal.role}_mib"
        super().__init__(
            QUOTA_EXCEEDED,
            f"{_mib(asked)} MiB more would be over {setting}: {_mib(used)} of {limit // _MIB} MiB are used",
            hint=_HINTS.get(principal.role, ""),
        )
        self.facts = {"limit_bytes": limit, "used_bytes": used, "asked_bytes": asked}


@dataclass(frozen=True, slots=True)
class Quota:
    """Bytes per party; 0 is without limit."""

    researcher_bytes: int = 0
    station_bytes: int = 0

    def of(self, role: Role) -> int:
        """Return a party's limit; 0 where there is none."""
        return {Role.RESEARCHER: self.researcher_bytes, Role.STATION: self.station_bytes}.get(role, 0)


@dataclass(slots=True)
class _UnderWay:
    path: Path | None
    digest: Digest | None
    bytes: int


@dataclass(slots=True)
class _Party:
    others_bytes: int = 0
    """What is there and not on its way, as it was counted last."""
    is_old: bool = True
    """Something began or ended since."""
    under_way: dict[int, _UnderWay] = field(default_factory=dict)
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Who counts; the map's own lock is never held meanwhile, so that nobody who ends waits for a disk or a database."""


class Quotas:
    """Counts for one process, which takes all uploads; any thread may ask."""

    def __init__(self, database: Database, store: BlobStore, quota: Quota) -> None:
        self._database, self._store, self._quota = database, store, quota
        self._lock = threading.Lock()
        self._parties: dict[str, _Party] = {}
        self._numbers = itertools.count()

    def limit(self, principal: Principal) -> int:
        """How many bytes a party may have here; 0 is without limit."""
        return self._quota.of(principal.role)

    def used(self, principal: Principal) -> int:
        """How many bytes a party's uploads take."""
        party = self._party(principal)
        with party.turn:
            party.is_old = True
            return self._used(principal, party)

    def begin(
        self, principal: Principal, size: int, *, path: Path | None = None, digest: Digest | None = None
    ) -> "Share":
        """Take room for an upload, until `Share.end`.

        Args:
            principal: who sends.
            size: how large the whole is, as far as it is known.
            path: the file in which it arrives.
            digest: under which it will be kept.

        Raises:
            QuotaError: there is not so much room.
        """
        share, party = Share(self, principal, next(self._numbers)), self._party(principal)
        with party.turn:
            # Before it is counted: what is there of it already is within what it announces.
            with self._lock:
                party.under_way[share.number] = _UnderWay(path, digest, size)
                party.is_old = True
            try:
                self._within(principal, party, size)
            except BaseException:
                share.end()
                raise
        return share

    def check(self, principal: Principal, size: int) -> None:
        """See that a document has room.

        Raises:
            QuotaError: it has none.
        """
        self.begin(principal, size).end()

    def _grow(self, share: "Share", size: int) -> None:
        party = self._party(share.principal)
        with party.turn:
            mine = party.under_way[share.number]
            before, mine.bytes = mine.bytes, max(mine.bytes, size)
            try:
                self._within(share.principal, party, mine.bytes)
            except BaseException:
                mine.bytes = before
                raise

    def _end(self, share: "Share") -> None:
        party = self._party(share.principal)
        with self._lock:
            party.under_way.pop(share.number, None)
            party.is_old = True

    def _party(self, principal: Principal) -> _Party:
        with self._lock:
            return self._parties.setdefault(principal.id, _Party())

    def _within(self, principal: Principal, party: _Party, asked: int) -> None:
        limit = self.limit(principal)
        if limit and (used := self._used(principal, party)) > limit:
            raise QuotaError(principal, limit, used - asked, asked)

    def _used(self, principal: Principal, party: _Party) -> int:
        while True:
            with self._lock:
                if not party.is_old:
                    return party.others_bytes + sum(each.bytes for each in party.under_way.values())
            self._count(principal, party)

    def _count(self, principal: Principal, party: _Party) -> None:
        """Count what is there, but for what is on its way; whatever begins or ends meanwhile makes the count old again."""
        with self._lock:
            party.is_old = False
            under_way = list(party.under_way.values())
        try:
            there = dict(self._store.unfinished(principal.id))
            kept = Counter[Digest]()
            for digest, size in self._kept(principal):
                kept[digest] += size
            documents = self._documents(principal)
        except BaseException:
            party.is_old = True
            raise
        for each in under_way:
            # It counts as announced: what is there of it is within that, in its file or, by now, under its digest. What is there
            # beyond that stays counted: whoever announces little for much that is kept makes no room.
            announced = each.bytes
            if each.path is not None and each.path in there:
                within = min(announced, there[each.path])
                there[each.path] -= within
                announced -= within
            if each.digest is not None:
                kept[each.digest] -= min(announced, kept[each.digest])
        with self._lock:
            party.others_bytes = sum(there.values()) + sum(kept.values()) + documents

    def _kept(self, principal: Principal) -> Iterator[tuple[Digest, int]]:
        if principal.role is Role.STATION:
            for name, size in self._store.updates(principal.name):
                yield f"sha256:{name}", size
            return
        with self._database.reading() as session:
            mine = select(BlobGrant.digest).where(BlobGrant.scope == owner_scope(principal))
            digests = session.scalars(mine).all()
        for digest in digests:
            yield digest, self._store.size(digest) or 0

    def _documents(self, principal: Principal) -> int:
        """What lies in the database."""
        if principal.role is Role.STATION:
            return 0
        with self._database.reading() as session:
            totals = [
                session.scalar(select(func.sum(func.length(column))).where(owner == principal.id))
                for column, owner in _DOCUMENTS
            ]
        return sum(int(total or 0) for total in totals)


class Share:
    """The room of one upload; as a context manager it is given back at the block's end."""

    def __init__(self, quotas: Quotas, principal: Principal, number: int) -> None:
        self._quotas, self.principal, self.number = quotas, principal, number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def grow(self, size: int) -> None:
        """Take as much as a whole of this size needs.

        Raises:
            QuotaError: there is not so much room; what was taken stays.
        """
        self._quotas._grow(self, size)  # noqa: SLF001 - two halves of one thing

    def end(self) -> None:
        """Give it back: what arrived is counted where it lies."""
        self._quotas._end(self)  # noqa: SLF001


_DOCUMENTS: Final = (
    (BundleRow.index_json, BundleRow.owner),
    (OciManifestRow.body, OciManifestRow.owner),
    (RequestRow.document, RequestRow.owner),
    (RequestRow.envelope, RequestRow.owner),
)


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f}"
