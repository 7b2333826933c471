"""What the board publishes beside a policy, against it: purposes, the register, and the stations it withdrew.

Pure: documents in, reasons out. Used at admission and at each message, and by `pht-board status`.
"""

from collections.abc import Collection
from datetime import date

from policies.charter import StationRegister
from policies.order import RunOrder
from policies.policy import Policy
from policies.purposes import PurposeTable
from policies.refusals import Reason, RefusalCode


def purpose_reasons(policy: Policy, table: PurposeTable | None) -> list[Reason]:
    """Return why the board's table does not permit a policy's purpose; empty where it does.

    1. There is a table.
    2. It has a rule for the purpose and the requester's class.
    3. The policy asks of its patients every consent that the rule names. A cohort holds only patients who gave every
       consent that the policy asks for, so the count that is left is of those.
    """
    # 1
    if table is None:
        return [Reason(RefusalCode.PURPOSE_TABLE_MISSING)]
    purpose, requester = policy.purpose.code, policy.requester.requester_class
    # 2
    needed = table.consents_for(purpose, requester)
    if needed is None:
        return [Reason(RefusalCode.PURPOSE_NOT_PERMITTED, f"{purpose} by a {requester} requester")]
    # 3
    missing = needed - set(policy.data.consent_purposes)
    if missing:
        return [Reason(RefusalCode.PURPOSE_CONSENTS_TOO_FEW, f"without {', '.join(sorted(missing))}")]
    return []


def station_reasons(order: RunOrder, policy: Policy, station: str, revoked: Collection[str]) -> list[Reason]:
    """Return why an order may not go on now that the board withdrew stations; empty where it may.

    A withdrawn station runs nothing. The others go on with the order while those of its stations that are left are as
    many as the policy and the order ask for: fewer would make each one's update easier to read.

    Args:
        order: the order.
        policy: the policy in force.
        station: whose decision it is.
        revoked: the stations that the board withdrew.
    """
    if station in revoked:
        return [Reason(RefusalCode.STATION_REVOKED, "this station")]
    left = sum(name not in revoked for name in order.stations)
    needed = max(policy.runs.minimum_stations, order.minimum_stations)
    if left < len(order.stations) and left < needed:
        return [Reason(RefusalCode.STATION_REVOKED, f"{left} stations are left of the {needed} it takes")]
    return []


def register_reasons(
    order: RunOrder,
    policy: Policy,
    station: str,
    register: StationRegister | None,
    revoked: Collection[str],
    today: date,
) -> list[Reason]:
    """Return why an order may not go on by the board's register of stations; empty where it may.

    1. This station stands in it, and its agreement holds and covers this policy.
    2. So do its peers stand in it. An agreement of a peer that ended, or is for other policies, keeps that peer out; the
       others go on while those that are left are as many as the policy and the order ask for.

    Args:
        order: the order.
        policy: the policy in force.
        station: whose decision it is.
        register: the board's; None where it has published none.
        revoked: the stations that the board withdrew.
        today: by which agreements are judged.
    """
    if register is None:
        return [Reason(RefusalCode.STATION_NOT_REGISTERED, "the board has published no register")]
    # 1
    found = []
    own = register.find(station)
    if own is None:
        found.append(Reason(RefusalCode.STATION_NOT_REGISTERED, "this station"))
    elif today > own.agreement.expires:
        found.append(Reason(RefusalCode.AGREEMENT_EXPIRED, "this station's agreement"))
    elif not own.agreement.covers(policy.id):
        found.append(Reason(RefusalCode.AGREEMENT_OTHER_PROJECT, "this station's agreement"))
    # 2
    peers = {name: register.find(name) for name in order.stations if name != station}
    if None in peers.values():
        found.append(Reason(RefusalCode.STATION_NOT_REGISTERED, "a peer the order names"))
    lapsed = {name for name, peer in peers.items() if peer is not None and today > peer.agreement.expires}
    foreign = {
        name for name, peer in peers.items() if peer is not None and not peer.agreement.covers(policy.id)
    }
    out = {name for name, peer in peers.items() if peer is None or name in revoked} | lapsed | foreign
    if len(order.stations) - len(out) < max(policy.runs.minimum_stations, order.minimum_stations):
        if lapsed:
            found.append(Reason(RefusalCode.AGREEMENT_EXPIRED, "a peer's agreement"))
        elif foreign:
            found.append(Reason(RefusalCode.AGREEMENT_OTHER_PROJECT, "a peer's agreement"))
    return found
