"""Could the run have been admitted by what the board had published? Asked of the rules that a station's admission asks."""

from dataclasses import dataclass
from datetime import UTC, datetime

from policies.charter import REGISTER_TARGET, StationRegister
from policies.evidence.archive import TARGETS, PackDamageError
from policies.order import RunOrder
from policies.policy import Policy
from policies.purposes import PURPOSES_TARGET, PurposeTable
from policies.rules.board_rules import purpose_reasons, register_reasons, station_reasons
from policies.trust.revocations import REVOKED_TARGET


@dataclass(frozen=True, slots=True)
class PublishedThen:
    """What the board had published beside the policy; all of it verified.

    Attributes:
        purposes: None where it had published none, which permits nothing.
        withdrawn: the names of the stations that it had withdrawn.
    """

    register: StationRegister
    purposes: PurposeTable | None
    withdrawn: frozenset[str]


def check_admission(
    order: RunOrder, policy: Policy, station: str, board: PublishedThen, at: datetime
) -> None:
    """Ask whether admission could have permitted the order at the station.

    Raises:
        PackDamageError: a rule refuses; says which document it refuses by.
    """
    register, withdrawn = board.register, board.withdrawn
    today = at.astimezone(UTC).date()
    asked = (
        (PURPOSES_TARGET, purpose_reasons(policy, board.purposes)),
        (REVOKED_TARGET, station_reasons(order, policy, station, withdrawn)),
        (REGISTER_TARGET, register_reasons(order, policy, station, register, withdrawn, today)),
    )
    for path, reasons in asked:
        for reason in reasons:
            raise PackDamageError(
                TARGETS + path,
                f"refuses the run: {reason.code}" + (f", {reason.detail}" if reason.detail else ""),
            )
