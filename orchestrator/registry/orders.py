"""Run orders: checked as far as the orchestrator can, recorded, and queued for the run worker.

Stations decide; this only spares everybody an order that three hospitals would refuse. Invariants: an order is queued
once, under the digest of its signed bytes; it is in the database and in its run folder, or it was not accepted; nobody takes it up
before it is in the database.
"""

import logging
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.federation.accepting import ACCEPTED, ORDER, discard, forget_discarded, publish, unpublished
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, Timing
from orchestrator.registry.access import Principal, add_grants, order_scope, unreadable
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.bundles import Bundles
from orchestrator.registry.runs import Runs
from orchestrator.registry.stations import Stations
from orchestrator.registry.trust import verified_policies
from orchestrator.results.facts import POLICY_FILE
from orchestrator.settings import Home
from orchestrator.storage import Database, OrderRow, OrderStationRow
from policies.documents import digest_of
from policies.errors import NotFoundError, PhtError, RefusedError, TrustError
from policies.files import write_atomically
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE, RunOrder, unverified_order
from policies.refusals import RefusalCode, Refused
from policies.rules.order_rules import manifest_reasons, order_reasons, verified_order
from policies.signing import unsafe_payload
from policies.trust.verification import PolicyInForce

_LOG = logging.getLogger(__name__)

MAX_ORDER_BYTES = 256 * 1024


class Orders:
    """Takes orders in."""

    def __init__(
        self,
        home: Home,
        database: Database,
        bundles: Bundles,
        stations: Stations,
        runs: Runs,
        timing: Timing,
        audit: Audit | None = None,
    ) -> None:
        self._home, self._database = home, database
        self._audit = audit or Audit(database)
        self._bundles, self._stations, self._runs, self._timing = bundles, stations, runs, timing
        self._queue = FolderQueue(home.runs)

    def accept(self, principal: Principal, envelope: bytes, now: datetime | None = None) -> AcceptedOrder:
        """Check an order and queue it; what is refused is in the audit as well.

        Raises:
            RefusedError, TrustError: as `_accept`.
        """
        try:
            return self._accept(principal, envelope, now)
        except (RefusedError, TrustError) as error:
            event = AuditEvent(
                action=Action.ORDER_REFUSED,
                who=principal.id,
                about=digest_of(envelope),
                outcome="refused",
                code=error.code if isinstance(error, RefusedError) else "TRUST",
            )
            # Not by object: its digest is whatever the sender makes it.
            self._audit.append_thinned(event)
            raise

    def _accept(self, principal: Principal, envelope: bytes, now: datetime | None) -> AcceptedOrder:
        """Check an order and queue it.

        1. It is an order under a policy in force in our mirror, signed by the requester that policy names.
        2. It stays within the policy and its train's manifest, and in time.
        3. Every station it names is registered.
        4. It was not given before: neither these bytes, nor its id.
        5. The initial weights are here, and its sender may read them.

        Raises:
            RefusedError: a rule said no; the code is the one that stations would give.
            TrustError: it is no signed order, or the mirror does not verify.
        """
        moment = now or datetime.now(UTC)
        # 1, 2
        order, manifest, in_force = self._checked(envelope, moment)
        # 3
        accepted = AcceptedOrder(
            order_digest=digest_of(unsafe_payload(envelope, PAYLOAD_TYPE)),
            envelope=envelope.decode("utf-8"),
            order=order,
            manifest=manifest,
            release=in_force.policy.release,
            nodes=self._nodes(order),
            timing=self._timing,
            requester=principal.id,
        )
        weights = order.initial_weights
        # The model of an earlier run is its requester's to start from, though they never sent it.
        own_model = weights is not None and self._runs.may_read_weights(principal, weights.digest)
        run = self._queue.folder(accepted.order_digest)
        with self._database.transaction() as session:
            # 4
            if not _is_known(session, accepted, queued=(run.path / ORDER).exists()):
                # 5
                if weights and not own_model and unreadable(session, principal, [weights.digest]):
                    raise RefusedError(
                        RefusalCode.ORDER_WEIGHTS,
                        "the initial weights are not here",
                        hint="Send their blob first.",
                    )
                _record(session, accepted, principal, moment)
                self._audit.append_in(
                    session,
                    AuditEvent(action=Action.ORDER_ACCEPTED, who=principal.id, about=accepted.order_digest),
                )
            # The policy as it was signed, for the result's documents.
            run.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            write_atomically(run.path / POLICY_FILE, in_force.envelope)
            # Durable before the commit, and taken up by nobody: no row is without its order.
            self._queue.prepare(accepted)
        # A crash before this is healed by `put_right`, and by giving the order again.
        publish(run.path)
        return accepted

    def put_right(self) -> None:
        """Finish or undo what a crash left half accepted; what fails is tried again.

        An order whose acceptance is in the database is let be taken up; a folder of one that is not there goes. Both in a
        transaction that writes: `accept` makes the folder within such a one, so that none is being accepted meanwhile, in this
        process or another.
        """
        try:
            forget_discarded(self._home.runs)
            for path in unpublished(self._home.runs):
                with self._database.transaction() as session:
                    if session.get(OrderRow, f"sha256:{path.name}") is None:
                        if not (path / ORDER).exists():
                            discard(path)
                            _LOG.warning("order_never_accepted")
                    elif (path / ACCEPTED).exists():
                        publish(path)
                        _LOG.warning("order_published_late")
        except (PhtError, OSError) as error:
            _LOG.warning("orders_not_put_right", extra={"code": type(error).__name__})

    def _checked(self, envelope: bytes, now: datetime) -> tuple[RunOrder, TrainManifest, PolicyInForce]:
        if len(envelope) > MAX_ORDER_BYTES:
            raise RefusedError(RefusalCode.ORDER_INVALID, f"an order is at most {MAX_ORDER_BYTES} bytes")
        claimed = unverified_order(envelope)
        found = verified_policies(self._home, now).find(claimed.policy_id, claimed.policy_version)
        if isinstance(found, Refused):
            raise _refusal(found)
        policy = found.value.policy
        verified = verified_order(envelope, policy)
        if isinstance(verified, Refused):
            raise _refusal(verified)
        order = verified.value
        if reasons := order_reasons(order, policy, found.value.digest, now):
            raise _refusal(Refused(tuple(reasons)))
        try:
            manifest = self._bundles.manifest(order.manifest_digest)
        except NotFoundError as error:
            raise RefusedError(
                RefusalCode.IMAGE_UNAVAILABLE,
                "the train's bundle is not here",
                hint="Send it with `pht-train submit`.",
            ) from error
        if reasons := manifest_reasons(order, manifest, policy):
            raise _refusal(Refused(tuple(reasons)))
        return order, manifest, found.value

    def _nodes(self, order: RunOrder) -> dict[str, int]:
        known = self._known_nodes()
        if not known.keys() >= set(order.stations):
            # The register may have been published while the SuperLink was down.
            self._stations.sync_quietly()
            known = self._known_nodes()
        for name in order.stations:
            if name not in known:
                raise RefusedError(
                    RefusalCode.STATION_NOT_REGISTERED,
                    f"{name} is not a registered station here",
                    hint="Once the board has published the register: `pht-orchestrator station sync`.",
                )
        return {name: known[name] for name in order.stations}

    def _known_nodes(self) -> dict[str, int]:
        return {view.name: view.node_id for view in self._stations.all() if view.node_id is not None}


def _is_known(session: Session, accepted: AcceptedOrder, *, queued: bool) -> bool:
    """Whether its sender gave this order before and it was not queued: the front died in between.

    Raises:
        RefusedError: it was given, and queued; or another one with its id.
    """
    known = session.scalar(
        select(OrderRow).where(
            (OrderRow.digest == accepted.order_digest) | (OrderRow.order_id == accepted.order.order_id)
        )
    )
    if known is None:
        return False
    same = known.digest == accepted.order_digest
    if same and not queued and known.requester == accepted.requester:
        return True
    what = "this order" if same else "an order with this order_id"
    raise RefusedError(
        RefusalCode.ORDER_SPENT, f"{what} was given already", hint="Make a new order for a new run."
    )


def _record(session: Session, accepted: AcceptedOrder, principal: Principal, now: datetime) -> None:
    order = accepted.order
    session.add(
        OrderRow(
            digest=accepted.order_digest,
            order_id=order.order_id,
            policy_id=order.policy_id,
            policy_version=order.policy_version,
            requester=principal.id,
            accepted=now,
        )
    )
    session.flush()
    for station in order.stations:
        session.add(OrderStationRow(order_digest=accepted.order_digest, station=station))
    if order.initial_weights is not None:
        add_grants(session, [order.initial_weights.digest], order_scope(accepted.order_digest))
    session.flush()


def _refusal(refused: Refused) -> RefusedError:
    reason = refused.reasons[0]
    return RefusedError(reason.code, reason.detail or "refused by the rule of this code")
