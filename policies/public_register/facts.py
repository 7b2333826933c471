"""What there is to tell, gathered from one verified state of the board's repository. Pure: no file, no network, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from policies.charter import Charter, Member, RegisteredStation
from policies.decisions import RefusedRequest, RunOutcome
from policies.policy import Policy
from policies.rules.board_rules import purpose_reasons
from policies.rules.capacity import Capacity, capacity
from policies.trust.policy_set import PolicySet, RepositoryState
from policies.trust.revocations import RevocationList
from policies.trust.verification import MemberOpinion


@dataclass(frozen=True, slots=True)
class Study:
    """A policy in force and what goes with it.

    Attributes:
        digest: of the file that the members signed.
        signers: who signed; empty for a development policy.
        capacity: the upper bound of what can leave.
        over: its validity has ended: nothing runs under it any more.
    """

    policy: Policy
    digest: str
    signers: tuple[Member, ...]
    opinions: tuple[MemberOpinion, ...]
    outcomes: tuple[RunOutcome, ...]
    capacity: Capacity
    begun: bool
    over: bool


@dataclass(frozen=True, slots=True)
class Hospital:
    """A registered hospital.

    Attributes:
        contact: where its patients turn to; None where nobody gave it.
        open: it may take part today.
        withdrawn: since when it is out, whatever the register says.
    """

    station: RegisteredStation
    contact: str | None
    open: bool
    withdrawn: datetime | None

    def takes_part_in(self, policy_id: str) -> bool:
        """Tell whether the hospital may run this policy today."""
        return self.open and self.station.agreement.covers(policy_id)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the pages show."""

    charter: Charter
    state: RepositoryState
    now: datetime
    studies: tuple[Study, ...]
    hospitals: tuple[Hospital, ...]
    refused: tuple[RefusedRequest, ...]
    outcomes: tuple[RunOutcome, ...]
    revocations: RevocationList


def facts_of(found: PolicySet, contacts: Mapping[str, str], now: datetime) -> Facts:
    """Gather what the register shows.

    Args:
        found: the verified state.
        contacts: where patients turn to, by station.
        now: the moment the register is of.

    Returns:
        The facts; a policy whose purpose the board's table does not permit is no study.

    Raises:
        TrustError: the secretary published decisions that cannot be read.
    """
    decisions = found.decisions
    members = {member.key: member for member in found.charter.members}
    studies = []
    for (policy_id, version), in_force in sorted(found.policies.items()):
        policy = in_force.policy
        if purpose_reasons(policy, found.purposes):
            # No station runs it, so it is not shown as permitted.
            continue
        studies.append(
            Study(
                policy=policy,
                digest=in_force.digest,
                signers=tuple(members[key] for key in members if key in in_force.signers),
                opinions=found.opinions(policy_id, version),
                outcomes=tuple(
                    outcome
                    for outcome in decisions.outcomes
                    if (outcome.policy_id, outcome.version) == (policy_id, version)
                ),
                capacity=capacity(policy),
                begun=policy.valid_from <= now,
                over=policy.valid_until <= now,
            )
        )
    return Facts(
        charter=found.charter,
        state=found.state,
        now=now,
        studies=tuple(studies),
        hospitals=tuple(_hospitals(found, contacts, now)),
        refused=decisions.refused,
        outcomes=decisions.outcomes,
        revocations=found.revocations,
    )


def _hospitals(found: PolicySet, contacts: Mapping[str, str], now: datetime) -> list[Hospital]:
    withdrawn = {entry.name: entry.when for entry in found.revocations.stations}
    stations = () if found.register is None else found.register.stations
    return [
        Hospital(
            station=station,
            contact=contacts.get(station.name),
            open=station.name not in withdrawn and now.astimezone(UTC).date() <= station.agreement.expires,
            withdrawn=withdrawn.get(station.name),
        )
        for station in stations
    ]
