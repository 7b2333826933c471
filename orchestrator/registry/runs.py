"""Runs as their parties see them: progress, rounds as events, results, and the wish to stop.

Reads the run folders that the run worker writes; writes nothing but that wish. Invariant: who is neither the
requester, nor board or operator, learns nothing of a run, not even that it is there.
"""

import time
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from orchestrator.federation.history import note_wish, read_history
from orchestrator.federation.order_weights import weights_in
from orchestrator.federation.orders import FolderQueue, RunFolder, RunProgress
from orchestrator.registry.access import Access, Principal, Role
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.results.facts import read_policy
from orchestrator.results.folder import RESULT_FILES, current_result
from orchestrator.results.mirror import mirror_report
from orchestrator.results.shown import shown_rounds
from orchestrator.settings import Home
from orchestrator.storage import Database, OrderRow
from policies.documents import Digest, digest_of_file
from policies.errors import NotFoundError, StateError
from policies.mirror_report import MirrorReport

POLL_S = 0.25
MAX_WAIT_S = 30.0
_MAX_DIGESTS = 1000


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, for a list or a page."""

    digest: Digest
    order_id: str
    policy_id: str
    policy_version: int
    requester: str
    accepted: datetime
    stations: tuple[str, ...]
    progress: RunProgress
    result: tuple[str, ...]


class Runs:
    """The runs of all orders."""

    def __init__(self, home: Home, database: Database, access: Access, audit: Audit | None = None) -> None:
        self._home, self._database, self._access = home, database, access
        self._audit = audit or Audit(database)
        self._queue = FolderQueue(home.runs)
        self._digests: dict[tuple[Path, int, int, int], Digest] = {}

    def all(self, principal: Principal) -> list[RunView]:
        """The runs that a party may see, the newest first."""
        with self._database.reading() as session:
            rows = session.scalars(select(OrderRow).order_by(OrderRow.accepted.desc())).all()
        return [self._view(row) for row in rows if _sees(principal, row)]

    def get(self, principal: Principal, digest: Digest) -> RunView:
        """One run.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        return self._view(self._row(principal, digest))

    def rounds(self, principal: Principal, digest: Digest) -> list[dict[str, Any]]:
        """The finished rounds of a run, oldest first, as the policy has them shown.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        self._row(principal, digest)
        folder = self._queue.folder(digest)
        return shown_rounds(folder.read_order(), folder.read_rounds())

    def envelope(self, principal: Principal, digest: Digest) -> bytes:
        """The order as it was given.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        self._row(principal, digest)
        return self._folder(digest).read_order().envelope.encode()

    def changed_since(self, digest: Digest, after: int, mark: str) -> bool:
        """Whether a run has more than `after` rounds, or another `mark`."""
        return self._queue.folder(digest).rounds.count() > after or self.mark(digest) != mark

    def mark(self, digest: Digest) -> str:
        """A short text that changes when a watcher would want to know."""
        folder = self._queue.folder(digest)
        progress = self._queue.shown(digest)
        given = current_result(folder.path, progress) is not None
        now = f"{progress.state}:{progress.round}:{progress.stage}:{progress.waiting}:{progress.position}"
        who = (
            sorted(progress.missing.items()),
            sorted(progress.excluded),
            sorted(progress.reviewing.items()),
        )
        return f"{now}:{zlib.crc32(repr(who).encode()):08x}:{'result' if given else ''}"

    def stop(self, principal: Principal, digest: Digest) -> None:
        """Ask that a run stops.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        self._row(principal, digest)
        self._record(Action.RUN_STOPPED, principal, digest)
        self._queue.request_stop(digest)
        note_wish(self._queue.folder(digest).path, "stop", principal.id)

    def resume(self, principal: Principal, digest: Digest) -> None:
        """Queue a failed or stopped run again.

        Raises:
            NotFoundError: there is none that this party may see.
            UsageError: it is neither failed nor stopped.
        """
        self._row(principal, digest)
        self._record(Action.RUN_RESUMED, principal, digest)
        self._queue.resume(digest)
        note_wish(self._queue.folder(digest).path, "resume", principal.id)

    def history(self, principal: Principal, digest: Digest) -> list[dict[str, Any]]:
        """Return how a run came to be where it is: changes of state and wishes with their moments, oldest first.

        Raises:
            NotFoundError: there is none that this party may see.
        """
        self._row(principal, digest)
        return read_history(self._queue.folder(digest).path)

    def result_file(self, principal: Principal, digest: Digest, name: str) -> Path:
        """Return a file of what a run gives that is over: for its requester and the operator.

        Raises:
            NotFoundError: it is not there, or not for this party.
        """
        row = self._row(principal, digest)
        if principal.role is not Role.OPERATOR and row.requester != principal.id:
            raise NotFoundError("the result is the requester's")
        run = self._queue.folder(digest)
        folder = current_result(run.path, run.read_progress())
        # The name is one of ours before it is part of a path.
        if folder is None or name not in RESULT_FILES or not (folder / name).is_file():
            raise NotFoundError("there is no such result file (yet)")
        event = AuditEvent(
            action=Action.RESULT_FETCHED, who=principal.id, about=f"{digest} {name}", outcome="begun"
        )
        # A download in ranges is many requests: one entry an hour, and always one.
        self._audit.append_once(event)
        return folder / name

    def result_digest(self, path: Path) -> Digest:
        """Return the digest of a result file's bytes, worked out once.

        Raises:
            NotFoundError: it went in between.
        """
        try:
            stated = path.stat()
            key = (path, stated.st_ino, stated.st_mtime_ns, stated.st_size)
            if key not in self._digests:
                if len(self._digests) >= _MAX_DIGESTS:
                    self._digests.clear()
                self._digests[key] = digest_of_file(path)
            return self._digests[key]
        except FileNotFoundError as error:
            raise NotFoundError("there is no such result file (yet)") from error

    def mirror_report(self, station: Principal, digest: Digest) -> MirrorReport:
        """Return a station's own report of a run that is over: it is made for who asks, and for nobody else.

        Raises:
            NotFoundError: there is no such run of this station, or it is not over.
        """
        if station.role is not Role.STATION or not self._access.is_party(station, digest):
            raise NotFoundError("there is no such run")
        run = self._queue.folder(digest)
        accepted, progress = run.read_order(), run.read_progress()
        if not progress.state.is_over:
            raise NotFoundError("the run is not over", hint="Its mirror report is there when it is.")
        policy = read_policy(run, accepted.order.policy_digest)
        return mirror_report(accepted, progress, run.read_rounds(), station.name, policy)

    def may_read_weights(self, principal: Principal, digest: Digest) -> bool:
        """Whether a blob is weights of a run of this party: the current or the previous round's."""
        for order_digest in self._access.orders_of(principal):
            folder = self._queue.folder(order_digest)
            try:
                if digest in weights_in(folder):
                    return True
            except StateError:
                continue
        return False

    def _record(self, action: Action, principal: Principal, about: str) -> None:
        # Before the effect: that is in the run's folder, not in the database.
        self._audit.append(AuditEvent(action=action, who=principal.id, about=about, outcome="begun"))

    def _row(self, principal: Principal, digest: Digest) -> OrderRow:
        with self._database.reading() as session:
            row = session.get(OrderRow, digest)
        if row is None or not _sees(principal, row):
            raise NotFoundError("there is no such run")
        return row

    def _folder(self, digest: Digest) -> RunFolder:
        return self._queue.folder(digest)

    def _view(self, row: OrderRow) -> RunView:
        folder = self._folder(row.digest)
        progress = self._queue.shown(row.digest)
        found = current_result(folder.path, progress)
        return RunView(
            digest=row.digest,
            order_id=row.order_id,
            policy_id=row.policy_id,
            policy_version=row.policy_version,
            requester=row.requester,
            accepted=row.accepted,
            stations=folder.read_order().order.stations,
            progress=progress,
            result=() if found is None else tuple(name for name in RESULT_FILES if (found / name).is_file()),
        )


def deadline(wait_s: float) -> float:
    """When a long poll of at most `MAX_WAIT_S` ends, on the monotonic clock."""
    return time.monotonic() + min(max(wait_s, 0.0), MAX_WAIT_S)


def _sees(principal: Principal, row: OrderRow) -> bool:
    if principal.sees_all_runs:
        return True
    return principal.role is Role.RESEARCHER and row.requester == principal.id
