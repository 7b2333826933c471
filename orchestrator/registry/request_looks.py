"""One look at what requests follow: orders, runs, and who else claims the same train and key. Everything is read once a look.

A request is signed by the key that it names, for its owner: it contests nothing and is contested by nobody. Those of earlier
versions prove no key, and both halves of what they claim stand in the public mirror: of several owners who claim one pair none of them
is approved by the policy alone, until an accepted order, whose signature is the named key's, tells whose it is. A request's run is only
an order that its own owner gave.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.federation.orders import FolderQueue, RunState
from orchestrator.registry.approvals import ApprovalsNow, Approving, PolicyKey
from orchestrator.registry.request_states import FINAL, WAITING, Derived, derived
from orchestrator.storage import OrderRow, RequestRow
from policies.errors import StateError
from policies.train_request import RequestState

_LOG = logging.getLogger(__name__)
_NO_CLAIM: Final = frozenset({RequestState.DECLINED.value, RequestState.WITHDRAWN.value})
_Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows for one request: the policy it rests on, and its steps."""

    policy: PolicyKey | None
    steps: tuple[Derived, ...]

    def changes_anything(self, row: RequestRow) -> bool:
        """Whether the row is not yet so."""
        return bool(self.steps) or (
            self.policy is not None and self.policy != (row.policy_id, row.policy_version)
        )


@dataclass(frozen=True, slots=True)
class _Order:
    digest: str
    version: int
    requester: str
    accepted: datetime


@dataclass(frozen=True, slots=True)
class _Claim:
    request: str
    owner: str
    state: str


@dataclass(slots=True)
class RunStates:
    """The states of runs, each folder read once; one that is damaged is logged once until it can be read again."""

    queue: FolderQueue
    damaged: set[str]
    _seen: dict[str, RunState | None] = field(default_factory=dict)

    def of(self, digests: Iterable[str]) -> tuple[RunState, ...] | None:
        """Return the states of these runs; None where one of them cannot be read."""
        found = [self._state(digest) for digest in digests]
        return None if None in found else tuple(state for state in found if state is not None)

    def _state(self, digest: str) -> RunState | None:
        if digest not in self._seen:
            self._seen[digest] = self._read(digest)
        return self._seen[digest]

    def _read(self, digest: str) -> RunState | None:
        try:
            state = self.queue.folder(digest).read_progress().state
        except StateError as error:
            if digest not in self.damaged:
                self.damaged.add(digest)
                _LOG.error("run_of_request_damaged", extra={"order": digest, "reason": error.message})
            return None
        self.damaged.discard(digest)
        return state


@dataclass(frozen=True, slots=True)
class Look:
    """What is known at one moment."""

    approvals: ApprovalsNow
    orders: dict[str, list[_Order]]
    claims: dict[_Pair, list[_Claim]]
    runs: RunStates

    def plan(self, row: RequestRow) -> Plan:
        """Return what follows for a request; nothing where a run of its own cannot be read."""
        held = _held(row)
        state = RequestState(row.state)
        found = self.approvals.of(row.manifest_digest, row.requester_key, held)
        if state in WAITING and (self.contested(row) or self._superseded(row)):
            found = Approving(None, None)
        policy = found.policy or held
        runs = () if policy is None else self.runs.of(self._own_orders(row, policy[0]))
        if runs is None:
            return Plan(held, ())
        return Plan(policy, derived(state, found.fact, runs))

    def contested(self, row: RequestRow) -> bool:
        """Whether somebody else claims this train and key, and the owner has proven the key neither by signing nor by an order."""
        if row.signed:
            return False
        pair = (row.manifest_digest, row.requester_key)
        givers = {
            order.requester
            for name, version in self.approvals.by_request.get(pair, ())
            for order in self.orders.get(name, ())
            if order.version == version
        }
        if givers:
            return row.owner not in givers
        # What the board declined stays so beside another's claim, even one that was withdrawn.
        ignored = frozenset() if row.state == RequestState.DECLINED else _NO_CLAIM
        return any(
            claim.owner != row.owner and claim.state not in ignored for claim in self.claims.get(pair, ())
        )

    def _superseded(self, row: RequestRow) -> bool:
        """Whether it was declined, and its owner has asked anew."""
        return row.state == RequestState.DECLINED and any(
            claim.owner == row.owner and claim.request != row.id and claim.state not in _NO_CLAIM
            for claim in self.claims.get((row.manifest_digest, row.requester_key), ())
        )

    def _own_orders(self, row: RequestRow, policy_id: str) -> list[str]:
        return [
            order.digest
            for order in self.orders.get(policy_id, ())
            if order.requester == row.owner and order.accepted >= row.submitted
        ]


def look_at(session: Session, rows: Iterable[RequestRow], approvals: ApprovalsNow, runs: RunStates) -> Look:
    """Read what these requests depend on: the orders and the claims by one query each; runs when they are asked for."""
    wanted: set[str] = set()
    for row in rows:
        pair = (row.manifest_digest, row.requester_key)
        wanted |= {name for name, _ in approvals.by_request.get(pair, ())}
        if row.policy_id is not None:
            wanted.add(row.policy_id)
    orders: dict[str, list[_Order]] = {}
    query = select(
        OrderRow.policy_id, OrderRow.digest, OrderRow.policy_version, OrderRow.requester, OrderRow.accepted
    ).where(OrderRow.policy_id.in_(wanted))
    for name, digest, version, requester, accepted in session.execute(query):
        orders.setdefault(name, []).append(_Order(digest, version, requester, accepted))
    return Look(approvals, orders, _claims(session), runs)


def _claims(session: Session) -> dict[_Pair, list[_Claim]]:
    open_ones = select(RequestRow.manifest_digest).where(RequestRow.state.not_in(FINAL))
    found: dict[_Pair, list[_Claim]] = {}
    query = select(
        RequestRow.manifest_digest,
        RequestRow.requester_key,
        RequestRow.id,
        RequestRow.owner,
        RequestRow.state,
    ).where(RequestRow.manifest_digest.in_(open_ones))
    for manifest, key, request, owner, state in session.execute(query):
        found.setdefault((manifest, key), []).append(_Claim(request, owner, state))
    return found


def _held(row: RequestRow) -> PolicyKey | None:
    return None if row.policy_id is None else (row.policy_id, row.policy_version or 0)
