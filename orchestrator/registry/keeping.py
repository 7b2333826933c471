"""What is kept for a researcher: whose a blob is, what needs it, and its removal by who sent it.

Invariants: a blob of a train stays with it; weights of an order stay until that is finished, and its model beyond; a file goes only when
no grant is left on it, in the transaction that takes the last one away. Whoever sends the same bytes at that moment is told to send
them again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from orchestrator.federation.orders import FolderQueue, RunState, weights_of
from orchestrator.registry.access import BUNDLE_SCOPE, Principal, add_grants, order_scope, owner_scope
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.blobs import BlobStore
from orchestrator.registry.quota import Quotas
from orchestrator.settings import Home
from orchestrator.storage import BlobGrant, Database, OrderRow
from policies.documents import Digest
from policies.errors import NotFoundError, RefusedError, StateError, UnavailableError

BLOB_IN_USE: Final = "BLOB_IN_USE"
MAX_SHOWN: Final = 1000


class Use(StrEnum):
    """What needs a blob."""

    TRAIN = "train"
    ORDER = "order"
    NOTHING = "nothing"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Kept:
    """One blob of a party."""

    digest: Digest
    size: int
    use: Use


@dataclass(frozen=True, slots=True)
class Holding:
    """What a party's uploads take; a limit of 0 is none."""

    limit_bytes: int
    used_bytes: int
    blobs: tuple[Kept, ...]


class Keeping:
    """The blobs of researchers, as theirs."""

    def __init__(
        self, home: Home, database: Database, blobs: BlobStore, quotas: Quotas, audit: Audit
    ) -> None:
        self._database, self._blobs, self._quotas, self._audit = database, blobs, quotas, audit
        self._queue = FolderQueue(home.runs)

    def own(self, principal: Principal, digest: Digest, *, apart: bool = False) -> None:
        """Write down whose a blob is that arrived whole.

        Args:
            principal: who sent it.
            digest: its bytes'.
            apart: it lies where nobody removes it by its digest.

        Raises:
            UnavailableError: it was removed by somebody else while it arrived.
        """
        scope = owner_scope(principal)
        with self._database.transaction() as session:
            if not apart and self._blobs.path(digest) is None:
                raise UnavailableError("the blob was removed while it arrived", hint="Send it again.")
            if session.get(BlobGrant, (digest, scope)) is None:
                self._note(session, Action.BLOB_STORED, principal, digest)
            add_grants(session, [digest], scope)

    def holding(self, principal: Principal) -> Holding:
        """What a party has here, the largest first."""
        with self._database.reading() as session:
            mine = select(BlobGrant.digest).where(BlobGrant.scope == owner_scope(principal))
            scopes: dict[Digest, set[str]] = {}
            for digest, scope in session.execute(
                select(BlobGrant.digest, BlobGrant.scope).where(BlobGrant.digest.in_(mine))
            ):
                scopes.setdefault(digest, set()).add(scope)
            orders = {order_scope(digest) for digest in self._unfinished(session, principal)}
        found = [
            Kept(digest, self._blobs.size(digest) or 0, _use(granted, orders))
            for digest, granted in scopes.items()
        ]
        found += [
            Kept(f"sha256:{path.name[:64]}", size, Use.UNFINISHED)
            for path, size in self._blobs.unfinished(principal.id)
            if path.parent.name == "partial"
        ]
        found.sort(key=lambda one: (-one.size, one.digest))
        return Holding(self._quotas.limit(principal), self._quotas.used(principal), tuple(found[:MAX_SHOWN]))

    def remove(self, principal: Principal, digest: Digest) -> None:
        """Remove a party's blob, and what is here of an unfinished upload of it.

        Raises:
            NotFoundError: this party has no such blob.
            RefusedError: something needs it (BLOB_IN_USE).
        """
        unfinished = self._blobs.forget_upload(digest, principal.id)
        own = owner_scope(principal)
        with self._database.transaction() as session:
            scopes = set(session.scalars(select(BlobGrant.scope).where(BlobGrant.digest == digest)))
            if own not in scopes:
                if unfinished:
                    return
                raise NotFoundError("you have no such blob here")
            use = _use(scopes, {order_scope(order) for order in self._unfinished(session, principal)})
            if use is not Use.NOTHING:
                raise RefusedError(
                    BLOB_IN_USE,
                    f"the blob is needed: by {_NEEDED[use]}",
                    hint="Blobs of a train stay with it; weights can go once their orders are finished.",
                )
            ours = {own, *(order_scope(order) for order in _orders(session, principal))} & scopes
            session.execute(delete(BlobGrant).where(BlobGrant.digest == digest, BlobGrant.scope.in_(ours)))
            self._note(session, Action.BLOB_REMOVED, principal, digest)
            if ours == scopes and not self._is_a_runs(digest):
                self._blobs.remove(digest)

    def _unfinished(self, session: Session, principal: Principal) -> set[Digest]:
        """The orders of a party that may still want their weights; one that cannot be read may."""
        now = datetime.now(UTC)
        return {order for order in _orders(session, principal) if not self._is_done(order, now)}

    def _is_done(self, order: Digest, now: datetime) -> bool:
        folder = self._queue.folder(order)
        try:
            state = folder.read_progress().state
            return state is RunState.FINISHED or (state.is_over and folder.read_order().order.expires <= now)
        except StateError:
            return False

    def _is_a_runs(self, digest: Digest) -> bool:
        """Whether a run has it as its model, or goes on from it; one that cannot be read may."""
        for folder in self._queue.folders():
            try:
                progress = folder.read_progress()
                if progress.weights == digest or (
                    progress.state is not RunState.FINISHED
                    and digest in weights_of(folder, folder.read_order())
                ):
                    return True
            except StateError:
                return True
        return False

    def _note(self, session: Session, action: Action, principal: Principal, digest: Digest) -> None:
        self._audit.append_in(session, AuditEvent(action=action, who=principal.id, about=digest))


_NEEDED: Final = {Use.TRAIN: "a train", Use.ORDER: "an order that is not finished"}


def _orders(session: Session, principal: Principal) -> list[Digest]:
    return list(session.scalars(select(OrderRow.digest).where(OrderRow.requester == principal.id)))


def _use(scopes: set[str], unfinished: set[str]) -> Use:
    if BUNDLE_SCOPE in scopes:
        return Use.TRAIN
    return Use.ORDER if scopes & unfinished else Use.NOTHING
