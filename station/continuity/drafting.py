"""What a statement says, gathered from the records inside one transaction. Signs nothing, decides nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import load_json
from policies.errors import PhtError
from policies.order import unverified_order
from policies.station_statement import (
    MAX_ORDERS,
    MAX_POLICIES,
    ChainEnd,
    OrderUse,
    PolicyUse,
    Restoration,
    StationStatement,
    TrustVersions,
)
from station.audit.chain import ChainHead
from station.audit.log import AUDIT_CHAIN
from station.catalogue.tables import SINGLE_ROW, CatalogueState
from station.continuity.tables import ContinuityRow
from station.egress.privacy.ledger import PRIVACY_COUNTER, privacy_spent_in
from station.egress.records.ledger import LEDGER_CHAIN
from station.egress.records.releases import RELEASES_COUNTER
from station.egress.records.tables import CounterRow, ReleaseRow
from station.runs.repository import LOST_RUNS_COUNTER
from station.runs.states import TERMINAL, RunState
from station.runs.tables import OrderRow


@dataclass(frozen=True, slots=True)
class Usage:
    """The counters of policies, inside a transaction; each only grows, so that a statement of it can be held against a later one.

    Attributes:
        runs_used: orders that a container ran under. One that is still being prepared may yet come to nothing.
        privacy_spent: what all draws of noise cost together.
    """

    runs_used: Callable[[Session, str], int]
    releases_used: Callable[[Session, str], int]
    privacy_spent: Callable[[Session, str], int] = privacy_spent_in


def draft(
    session: Session, station: str, row: ContinuityRow, sequence: int, usage: Usage, now: datetime
) -> StationStatement:
    """Return what the station would state now."""
    return StationStatement(
        station=station,
        epoch=row.epoch,
        sequence=sequence,
        time=now,
        audit=_end(AUDIT_CHAIN.head(session)),
        egress=_end(LEDGER_CHAIN.head(session)),
        policies=_policies(session, usage),
        orders=_orders(session, now),
        trust=TrustVersions(
            root=row.trust_root,
            timestamp=row.trust_timestamp,
            targets=row.trust_targets,
            register_version=row.trust_register,
        ),
        consent_sequence=consent_of(session)[0],
        restored=restoration_of(row),
    )


def restoration_of(row: ContinuityRow) -> Restoration | None:
    """Return what began the present epoch; None in the first."""
    return None if row.restoration is None else load_json(Restoration, row.restoration, what="restoration")


def consent_of(session: Session) -> tuple[int | None, datetime | None]:
    """Return the consent state in force and when its source was read; None where there is none."""
    state = session.get(CatalogueState, SINGLE_ROW)
    return (None, None) if state is None else (state.consent_sequence, state.consent_source_date)


def _end(head: ChainHead) -> ChainEnd:
    return ChainEnd(seq=head.seq, digest=head.digest)


def _policies(session: Session, usage: Usage) -> tuple[PolicyUse, ...]:
    names = set(session.scalars(select(OrderRow.policy_id).distinct()))
    names |= set(
        session.scalars(
            select(CounterRow.scope).where(
                CounterRow.name.in_((RELEASES_COUNTER, LOST_RUNS_COUNTER, PRIVACY_COUNTER))
            )
        )
    )
    uses = [
        PolicyUse(
            policy_id=name,
            runs=usage.runs_used(session, name),
            releases=usage.releases_used(session, name),
            privacy=usage.privacy_spent(session, name),
        )
        for name in sorted(names)
    ]
    return tuple(use for use in uses if use.runs or use.releases or use.privacy)[:MAX_POLICIES]


def _orders(session: Session, now: datetime) -> tuple[OrderUse, ...]:
    counts = select(ReleaseRow.order_digest, func.count()).group_by(ReleaseRow.order_digest)
    releases = {order: count for order, count in session.execute(counts)}  # noqa: C416 - typed, as dict() is not
    newest = select(OrderRow.order_digest, OrderRow.state, OrderRow.envelope).order_by(
        OrderRow.first_seen.desc(), OrderRow.order_digest
    )
    uses = [
        OrderUse(order=digest, releases=releases.get(digest, 0), finished=RunState(state) in TERMINAL)
        for digest, state, envelope in session.execute(newest.limit(MAX_ORDERS))
        if not _expired(envelope, now)
    ]
    return tuple(sorted(uses, key=lambda use: use.order))


def _expired(envelope: bytes, now: datetime) -> bool:
    try:
        order = unverified_order(envelope)
    except PhtError:
        # It was verified when it was recorded: an order of an earlier version's form. It is stated until it is spent.
        return False
    return now >= order.expires
