"""What a training reply must hold, found in the reply and in the inbound weights: tensor beside tensor.

Nothing is computed here; `pieces` reads them, the rules on them are `measuring`, `updates` and, with noise, `noising`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policies.errors import WireError
from policies.outputs import DType
from policies.refusals import Reason, RefusalCode
from policies.wire.arrays import (
    ArrayLayout,
    ArrayLimits,
    TensorEntry,
    read_layout,
)
from policies.wire.releases import ReleaseTensor, TensorRole
from station.egress.contract import ReleaseContract
from station.egress.figures import TENSOR_NAME, shown

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TensorPair:
    """One released tensor: its rule, its released dtype, and where the reply and the inbound weights hold it."""

    rule: ReleaseTensor
    released: DType
    reply: tuple[Path, TensorEntry]
    inbound: tuple[Path, TensorEntry]

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.rule.reply.name

    @property
    def is_parameter(self) -> bool:
        """Whether it is trained, so that clipping and noise are for it."""
        return self.rule.role is TensorRole.PARAMETER


def pair_tensors(
    contract: ReleaseContract, reply: Path, inbound: Path
) -> list[TensorPair] | tuple[Reason, ...]:
    """Return the tensors that may leave, or why nothing may: both files parse, and the reply holds exactly the contract's.

    Args:
        contract: with its tensors.
        reply: the train's file, untrusted; nobody else writes to it any more.
        inbound: the weights that the round started from.

    Raises:
        StorageError: a file cannot be read.
    """
    tensors = contract.tensors or ()
    try:
        given = read_layout(reply, ArrayLimits(max_bytes=contract.reply_arrays_limit("train")))
    except WireError as error:
        return (Reason(RefusalCode.RELEASE_UNPARSEABLE, error.message),)
    try:
        weights = read_layout(inbound).by_name()
    except WireError as error:
        return (Reason(RefusalCode.STATION_FAULT, f"inbound weights: {error.message}"),)
    if reasons := _differences(tensors, given):
        return tuple(reasons)
    entries = given.by_name()
    pairs = []
    for rule in tensors:
        name = rule.reply.name
        if name not in weights or weights[name].tensor != rule.reply:
            return (Reason(RefusalCode.STATION_FAULT, "the inbound weights are not those of the contract"),)
        if rule.released_dtype is not None:
            pairs.append(
                TensorPair(rule, rule.released_dtype, (reply, entries[name]), (inbound, weights[name]))
            )
    return pairs


def _differences(tensors: Sequence[ReleaseTensor], given: ArrayLayout) -> list[Reason]:
    expected = {rule.reply.name: rule.reply for rule in tensors}
    found = {tensor.name: tensor for tensor in given.tensors}
    both = sorted(expected.keys() & found.keys())
    differences = (
        (RefusalCode.RELEASE_TENSOR_EXTRA, found.keys() - expected.keys()),
        (RefusalCode.RELEASE_TENSOR_MISSING, expected.keys() - found.keys()),
        (
            RefusalCode.RELEASE_TENSOR_SHAPE,
            [name for name in both if found[name].shape != expected[name].shape],
        ),
        (
            RefusalCode.RELEASE_TENSOR_DTYPE,
            [name for name in both if found[name].dtype != expected[name].dtype],
        ),
    )
    return [Reason(code, shown(names, TENSOR_NAME)) for code, names in differences if names]
