"""The life of a run order at one station, as one table ``(state, event) -> state``.

    seen ──ask──> waiting-operator ──approve──> preparing ──prepared──> ready <──answered── busy
      └──admit────────────────────────────────────^  ^──recover──────────┴──begin──────────^

`stopped`, `failed` and `finished` are ends. `refused` is not: a refusal may pass (stale consent, a busy machine), so the
orchestrator's next `prepare` has the order looked at again. Pure: no clock, no storage.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class RunState(StrEnum):
    """Where an order stands at this station."""

    SEEN = "seen"
    WAITING_OPERATOR = "waiting-operator"
    HELD = "held"
    REFUSED = "refused"
    PREPARING = "preparing"
    READY = "ready"
    BUSY = "busy"
    STOPPED = "stopped"
    FAILED = "failed"
    FINISHED = "finished"


class RunEvent(StrEnum):
    """What can happen to an order."""

    ADMIT = "admit"
    """Every rule permits it and the hospital asks no click."""
    ASK_OPERATOR = "ask-operator"
    """Every rule permits it but the hospital's operator decides."""
    APPROVE = "approve"
    HOLD = "hold"
    STOP = "stop"
    """The operator, a revocation, or a run that ended at the orchestrator."""
    REFUSE = "refuse"
    REASSESS = "reassess"
    """A prepare instruction for an order that was refused before."""
    PREPARED = "prepared"
    """Image verified, cohort frozen, container started."""
    BEGIN = "begin"
    ANSWERED = "answered"
    """The message has its answer: released, withheld or failed."""
    RECOVER = "recover"
    """The station, the container or the cohort has to start again."""
    FAIL = "fail"
    FINISH = "finish"


class Decision(StrEnum):
    """What the operator said about an order."""

    NONE = "none"
    APPROVED = "approved"
    HELD = "held"
    STOPPED = "stopped"


TERMINAL: Final = frozenset({RunState.STOPPED, RunState.FAILED, RunState.FINISHED})
"""An order in one of these is spent."""

HOLDS_RESOURCES: Final = frozenset({RunState.PREPARING, RunState.READY, RunState.BUSY})
"""Counted as a run of its policy and against the machine."""

_WAITING: Final = (RunState.SEEN, RunState.WAITING_OPERATOR, RunState.HELD, RunState.REFUSED)
_LIVE: Final = (*_WAITING, RunState.PREPARING, RunState.READY, RunState.BUSY)


def _table() -> dict[tuple[RunState, RunEvent], RunState]:
    table = {
        (RunState.SEEN, RunEvent.ADMIT): RunState.PREPARING,
        (RunState.SEEN, RunEvent.ASK_OPERATOR): RunState.WAITING_OPERATOR,
        (RunState.SEEN, RunEvent.HOLD): RunState.HELD,
        (RunState.WAITING_OPERATOR, RunEvent.APPROVE): RunState.PREPARING,
        (RunState.WAITING_OPERATOR, RunEvent.HOLD): RunState.HELD,
        (RunState.HELD, RunEvent.APPROVE): RunState.PREPARING,
        (RunState.SEEN, RunEvent.APPROVE): RunState.PREPARING,
        (RunState.PREPARING, RunEvent.HOLD): RunState.HELD,
        (RunState.READY, RunEvent.HOLD): RunState.HELD,
        (RunState.BUSY, RunEvent.HOLD): RunState.HELD,
        # The operator's word stands whatever else refuses just now.
        (RunState.REFUSED, RunEvent.HOLD): RunState.HELD,
        (RunState.REFUSED, RunEvent.APPROVE): RunState.REFUSED,
        (RunState.REFUSED, RunEvent.REASSESS): RunState.SEEN,
        (RunState.PREPARING, RunEvent.PREPARED): RunState.READY,
        (RunState.PREPARING, RunEvent.REASSESS): RunState.SEEN,
        (RunState.READY, RunEvent.BEGIN): RunState.BUSY,
        (RunState.BUSY, RunEvent.ANSWERED): RunState.READY,
    }
    for state in HOLDS_RESOURCES:
        table[state, RunEvent.RECOVER] = RunState.PREPARING
        table[state, RunEvent.FAIL] = RunState.FAILED
    # Not from `held`: a refusal must not take the operator's word away.
    for state in (
        RunState.SEEN, RunState.WAITING_OPERATOR, RunState.REFUSED, RunState.PREPARING, RunState.READY
    ):  # fmt: skip
        table[state, RunEvent.REFUSE] = RunState.REFUSED
    for state in _LIVE:
        table[state, RunEvent.STOP] = RunState.STOPPED
        table[state, RunEvent.FINISH] = RunState.FINISHED
    # A container's last answer may come after the operator's word: the word stands.
    for state in (*TERMINAL, RunState.HELD, RunState.PREPARING):
        table[state, RunEvent.ANSWERED] = state
    return table


TRANSITIONS: Final = MappingProxyType(_table())


def next_state(state: RunState, event: RunEvent) -> RunState | None:
    """Return the state after an event, or None where the event cannot happen.

    >>> next_state(RunState.READY, RunEvent.BEGIN)
    <RunState.BUSY: 'busy'>
    >>> next_state(RunState.FINISHED, RunEvent.BEGIN) is None
    True
    """
    return TRANSITIONS.get((state, event))
