"""What a station may state after what it stated before: one rule, for orchestrator and witness alike. Pure."""

from policies.refusals import RefusalCode, Refused
from policies.station_statement import StationStatement


def held_against(standing: StationStatement, offered: StationStatement) -> Refused | None:
    """Decide whether a statement may follow the one that stands; the same statement again may.

    1. A later epoch must say that it was restored from the one that stands, or from a later one, and keep its budgets.
    2. Within an epoch, sequence, chains and counters only grow.
    3. One sequence has one statement; one place of a chain has one entry.
    """
    if offered.digest == standing.digest:
        return None
    # 1
    if offered.epoch < standing.epoch:
        return _rollback("an earlier epoch than was stated before")
    if offered.epoch > standing.epoch:
        return _restored_from(standing, offered)
    # 3
    if offered.sequence == standing.sequence:
        return _fork("another statement of the same sequence")
    for name, before, after in (
        ("audit", standing.audit, offered.audit),
        ("egress", standing.egress, offered.egress),
    ):
        if before.seq == after.seq and before.digest != after.digest:
            return _fork(f"the {name} chain has two entries at one place")
    # 2
    if offered.sequence < standing.sequence:
        return _rollback("an earlier statement than was stated before")
    if offered.audit.seq < standing.audit.seq or offered.egress.seq < standing.egress.seq:
        return _rollback("a chain is shorter than was stated before")
    return _rollback("a counter went back") if counters_lack(standing, offered) else None


def counters_lack(stated: StationStatement, found: StationStatement) -> bool:
    """Tell whether a counter of `found` is below what was stated; an order that expired meanwhile is no counter."""
    orders = {use.order: use for use in found.orders}
    for order in stated.orders:
        later = orders.get(order.order)
        if later is not None and (later.releases < order.releases or (order.finished and not later.finished)):
            return True
    before, after = stated.trust, found.trust
    return (
        _budgets_lack(stated, found)
        or after.root < before.root
        or after.timestamp < before.timestamp
        or after.targets < before.targets
        or after.register_version < before.register_version
        or (found.consent_sequence or 0) < (stated.consent_sequence or 0)
    )


def _budgets_lack(stated: StationStatement, found: StationStatement) -> bool:
    uses = {use.policy_id: use for use in found.policies}
    return any(
        (have := uses.get(use.policy_id)) is None
        or have.runs < use.runs
        or have.releases < use.releases
        or have.privacy < use.privacy
        for use in stated.policies
    )


def _restored_from(standing: StationStatement, offered: StationStatement) -> Refused | None:
    restored = offered.restored
    if restored is None:
        return _fork("a new epoch without a restoration")
    named, known = (restored.epoch, restored.sequence), (standing.epoch, standing.sequence)
    if named < known:
        return _fork("restored from an earlier statement than was stated since")
    if named == known and restored.statement != standing.digest:
        return _fork("restored from another statement than the one that stands")
    return _rollback("a budget went back with the restoration") if _budgets_lack(standing, offered) else None


def _fork(detail: str) -> Refused:
    return Refused.because(RefusalCode.STATEMENT_FORK, detail)


def _rollback(detail: str) -> Refused:
    return Refused.because(RefusalCode.STATEMENT_ROLLBACK, detail)
