"""The life of a request as a table, and what follows from the mirror and the runs. Pure.

    submitted --take-up--> in-review --decline--> declined
        |                      |                      |
        +------ approved: a policy in force names the manifest and the key (also after a decline)
                               |
                    approved --ordered--> ordered --running--> running --released--> released
                                             ^--- run-over (failed, stopped) ---+
    submitted, in-review, declined, approved --withdraw--> withdrawn
    approved --decline--> declined (where another claims the same train and key)
    approved, ordered, running --policy-gone--> withdrawn

Nobody says `approved`, `ordered`, `running` or `released`: they are read off the board's signed files and the run folders.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator.federation.orders import RunState
from policies.train_request import RequestState as S


class RequestEvent(StrEnum):
    """What moves a request."""

    SUBMIT = "submit"
    TAKE_UP = "take-up"
    DECLINE = "decline"
    WITHDRAW = "withdraw"
    APPROVED = "approved"
    POLICY_GONE = "policy-gone"
    ORDERED = "ordered"
    RUNNING = "running"
    RUN_OVER = "run-over"
    RELEASED = "released"


TRANSITIONS: Final[dict[tuple[S, RequestEvent], S]] = {
    (S.SUBMITTED, RequestEvent.TAKE_UP): S.IN_REVIEW,
    (S.SUBMITTED, RequestEvent.DECLINE): S.DECLINED,
    (S.IN_REVIEW, RequestEvent.DECLINE): S.DECLINED,
    (S.SUBMITTED, RequestEvent.WITHDRAW): S.WITHDRAWN,
    (S.IN_REVIEW, RequestEvent.WITHDRAW): S.WITHDRAWN,
    (S.APPROVED, RequestEvent.WITHDRAW): S.WITHDRAWN,
    (S.DECLINED, RequestEvent.WITHDRAW): S.WITHDRAWN,
    # Only where somebody else claims the same train and key (`requests`): the policy stands, whatever becomes of the request.
    (S.APPROVED, RequestEvent.DECLINE): S.DECLINED,
    (S.SUBMITTED, RequestEvent.APPROVED): S.APPROVED,
    (S.IN_REVIEW, RequestEvent.APPROVED): S.APPROVED,
    (S.DECLINED, RequestEvent.APPROVED): S.APPROVED,
    (S.APPROVED, RequestEvent.POLICY_GONE): S.WITHDRAWN,
    (S.ORDERED, RequestEvent.POLICY_GONE): S.WITHDRAWN,
    (S.RUNNING, RequestEvent.POLICY_GONE): S.WITHDRAWN,
    (S.APPROVED, RequestEvent.ORDERED): S.ORDERED,
    (S.ORDERED, RequestEvent.RUNNING): S.RUNNING,
    (S.RUNNING, RequestEvent.RUN_OVER): S.ORDERED,
    (S.RUNNING, RequestEvent.RELEASED): S.RELEASED,
}

FINAL: Final = frozenset({S.RELEASED, S.WITHDRAWN})
_PERMITTED: Final = frozenset({S.APPROVED, S.ORDERED, S.RUNNING})
WAITING: Final = frozenset({S.SUBMITTED, S.IN_REVIEW, S.DECLINED})

MIRROR: Final = "board's mirror"
ORDERS: Final = "orders"
RUNS: Final = "runs"


@dataclass(frozen=True, slots=True)
class PolicyFact:
    """What the verified mirror says of a request's manifest and key: in force, or why not."""

    in_force: bool
    code: str


@dataclass(frozen=True, slots=True)
class Derived:
    """One change that nobody made by hand."""

    event: RequestEvent
    who: str
    code: str = ""


def next_state(state: S, event: RequestEvent) -> S | None:
    """Return where an event leads, or None where it does not fit."""
    return TRANSITIONS.get((state, event))


def derived(state: S, policy: PolicyFact | None, runs: tuple[RunState, ...]) -> tuple[Derived, ...]:
    """Return the changes that follow from what is known now, in their order.

    Args:
        state: where the request stands.
        policy: None where the mirror does not verify now: then nothing is concluded from it.
        runs: the states of the runs that its owner ordered under its policy since it was submitted.
    """
    steps: list[Derived] = []
    if policy is not None and policy.in_force and state in WAITING:
        steps.append(Derived(RequestEvent.APPROVED, MIRROR, policy.code))
        state = S.APPROVED
    if state in _PERMITTED:
        for step in _of_runs(state, runs):
            steps.append(step)
            state = TRANSITIONS[state, step.event]
    if policy is not None and not policy.in_force and state in _PERMITTED:
        steps.append(Derived(RequestEvent.POLICY_GONE, MIRROR, policy.code))
    return tuple(steps)


def _of_runs(state: S, runs: tuple[RunState, ...]) -> list[Derived]:
    # What was not looked at in between happened all the same: a finished run was ordered, and ran.
    steps = []
    released, running = RunState.FINISHED in runs, RunState.RUNNING in runs
    if runs and state is S.APPROVED:
        steps.append(Derived(RequestEvent.ORDERED, ORDERS))
        state = S.ORDERED
    if (running or released) and state is S.ORDERED:
        steps.append(Derived(RequestEvent.RUNNING, RUNS))
        state = S.RUNNING
    if released and state is S.RUNNING:
        steps.append(Derived(RequestEvent.RELEASED, RUNS))
    elif state is S.RUNNING and not running:
        steps.append(
            Derived(RequestEvent.RUN_OVER, RUNS, "RUN_FAILED" if RunState.FAILED in runs else "RUN_STOPPED")
        )
    return steps
