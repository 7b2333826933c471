"""Which tensors a training release holds: worked out the same way by the station that makes it and the orchestrator that checks it.

A release's arrays are one safetensors file of deltas from the inbound weights. Names and shapes are those of the
weights; dtypes are what `policies.wire.arrays.released_dtype` says; what the policy withholds is not in the file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from policies.errors import WireError
from policies.outputs import DType, TensorOutputs
from policies.policy import TensorRules
from policies.wire.arrays import FLOAT_DTYPES, TensorShape, released_dtype
from policies.wire.arrays_writing import canonical_layout


class TensorRole(StrEnum):
    """What a tensor is to the rules: each role has its own."""

    PARAMETER = "parameter"
    FLOAT_BUFFER = "float-buffer"
    INTEGER_BUFFER = "integer-buffer"


@dataclass(frozen=True, slots=True)
class ReleaseTensor:
    """One tensor that a training reply must hold, and how it leaves.

    Attributes:
        reply: name, shape and dtype as the train returns it, equal to those of the inbound weights.
        role: which rules apply.
        released_dtype: of its delta in the release; None where the policy withholds it.
    """

    reply: TensorShape
    role: TensorRole
    released_dtype: DType | None

    @property
    def released(self) -> TensorShape | None:
        """The delta in the release, or None where it is withheld."""
        if self.released_dtype is None:
            return None
        return TensorShape(self.reply.name, self.released_dtype, self.reply.shape)


def release_tensors(
    outputs: TensorOutputs, rules: TensorRules, inbound: Iterable[TensorShape]
) -> tuple[ReleaseTensor, ...]:
    """Return the closed list of tensors of a training release, by name.

    An integer tensor counts as a buffer whatever the manifest calls it: nothing trains integers, and the stricter rule
    is the safe one.

    Args:
        outputs: the manifest's tensors.
        rules: the policy's rules about them.
        inbound: the tensors of the weights that the round starts from.

    Raises:
        WireError: a listed tensor is not one of the weights' with the same shape and dtype; a delta has no meaning then.
    """
    weights = {tensor.name: tensor for tensor in inbound}
    if outputs.layout == "same-as-input":
        roles = {name: outputs.role_of(name) for name in weights}
    else:
        for spec in outputs.listed:
            if weights.get(spec.name) != TensorShape(spec.name, spec.dtype, tuple(spec.shape)):
                raise WireError("the weights do not hold every listed tensor with its shape and dtype")
        roles = {spec.name: spec.role for spec in outputs.listed}
    return tuple(_rule(weights[name], roles[name] == "buffer", rules) for name in sorted(roles))


def update_bytes(tensors: Iterable[ReleaseTensor]) -> int:
    """Return how large the file of an update is: all of its deltas, as every station writes them.

    Args:
        tensors: exactly those of a training reply; with none there is no file.

    Raises:
        WireError: a name twice, or one that files may not hold.
    """
    deltas = [each.released for each in tensors if each.released is not None]
    return canonical_layout(deltas).file_bytes if deltas else 0


def _rule(tensor: TensorShape, is_buffer: bool, rules: TensorRules) -> ReleaseTensor:
    if tensor.dtype not in FLOAT_DTYPES:
        role, released = TensorRole.INTEGER_BUFFER, rules.integer_buffers == "release"
    elif is_buffer:
        role, released = TensorRole.FLOAT_BUFFER, rules.float_buffers == "release"
    else:
        role, released = TensorRole.PARAMETER, True
    return ReleaseTensor(tensor, role, released_dtype(tensor.dtype, rules.precision) if released else None)
