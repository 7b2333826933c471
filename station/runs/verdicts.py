"""What an instruction is told where it cannot be carried out: pure looks at the order, the run and the fault."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from policies.errors import NetworkError, PhtError, RefusedError, StorageError, UnavailableError
from policies.refusals import Reason, RefusalCode
from policies.wire.instructions import Instruction
from station.admission.gatekeeper import Admitted
from station.runs.repository import Run
from station.runs.states import RunState

SPENT: Final[Mapping[RunState, RefusalCode]] = MappingProxyType(
    {
        RunState.FINISHED: RefusalCode.ORDER_SPENT,
        RunState.STOPPED: RefusalCode.RUN_STOPPED,
        RunState.FAILED: RefusalCode.TRAIN_FAILED_TOO_OFTEN,
    }
)
"""What is told of an order that has ended."""


def why_spent(run: Run) -> RefusalCode:
    """Return why an order that has ended here takes no further message."""
    if run.state is RunState.FAILED and run.code == RefusalCode.RUN_TIME_SPENT:
        return RefusalCode.RUN_TIME_SPENT
    return SPENT[run.state]


def outside_the_order(instruction: Instruction, admitted: Admitted) -> Reason | None:
    """Return how an instruction leaves the order it claims to carry."""
    order = admitted.order
    if instruction.kind.value not in order.stages:
        return Reason(RefusalCode.ORDER_KIND)
    if instruction.round > order.rounds:
        return Reason(RefusalCode.ORDER_ROUND)
    if dict(instruction.config) != dict(order.hyperparameters):
        return Reason(RefusalCode.ORDER_CONFIG, "not the hyperparameters that the order signs")
    if (instruction.weights is None) != (order.initial_weights is None):
        return Reason(RefusalCode.ORDER_WEIGHTS)
    # Only training moves on from the weights that the order signs.
    first = instruction.round == 1 and instruction.kind.value == order.stages[0]
    unmoved = first or "train" not in order.stages
    if unmoved and instruction.weights is not None and order.initial_weights is not None:
        named = (order.initial_weights.digest, order.initial_weights.size)
        if (instruction.weights.digest, instruction.weights.size) != named:
            return Reason(RefusalCode.ORDER_WEIGHTS, "not the initial weights that the order signs")
    return None


def code_of(error: PhtError) -> RefusalCode:
    """Return what is told of a fault that ended a preparation."""
    match error:
        case RefusedError() if error.code in RefusalCode.__members__:
            return RefusalCode(error.code)
        case StorageError():
            return RefusalCode.STATION_STORAGE
        case NetworkError():
            return RefusalCode.NETWORK_UNAVAILABLE
        case UnavailableError():
            return RefusalCode.ENGINE_UNAVAILABLE
        case _:
            return RefusalCode.STATION_FAULT
