"""Looks at every number that would leave: whether it is finite, within bounds, and how large all are together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from policies.policy import TensorRules
from policies.refusals import Reason, RefusalCode
from policies.wire.arrays import Array
from policies.wire.floats import LARGEST
from policies.wire.releases import TensorRole
from station.egress.figures import TENSOR_NAME, shown
from station.egress.training.pairing import Floats, TensorPair
from station.egress.training.pieces import PairFiles, Piece, in_order, jobs_of

_LARGEST_INTEGER_STEP: Final = float(1 << 60)


@dataclass(slots=True)
class Findings:
    """The tensors that keep an update here, by the rule they break.

    Attributes:
        not_finite: their names, in the order they were found.
        out_of_range: likewise.
    """

    not_finite: dict[str, None] = field(default_factory=dict)
    out_of_range: dict[str, None] = field(default_factory=dict)

    def note(self, name: str, code: RefusalCode | None) -> None:
        """Keep what was found of a tensor."""
        if code is RefusalCode.RELEASE_TENSOR_NOT_FINITE:
            self.not_finite[name] = None
        elif code is not None:
            self.out_of_range[name] = None

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why nothing may leave; empty where everything may."""
        other = [name for name in self.out_of_range if name not in self.not_finite]
        found = (
            (RefusalCode.RELEASE_TENSOR_NOT_FINITE, list(self.not_finite)),
            (RefusalCode.RELEASE_TENSOR_RANGE, other),
        )
        return tuple(Reason(code, shown(names, TENSOR_NAME)) for code, names in found if names)


def problem_with_floats(delta: Floats, pair: TensorPair, rules: TensorRules) -> RefusalCode | None:
    """Return what is wrong with some numbers of a float tensor's delta."""
    # Minimum and maximum both propagate NaN, so they answer finiteness and range together.
    low, high = float(delta.min()), float(delta.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return RefusalCode.RELEASE_TENSOR_NOT_FINITE
    bound = min(rules.maximum_absolute, LARGEST[pair.released])
    return RefusalCode.RELEASE_TENSOR_RANGE if max(-low, high) > bound else None


def problem_with_integers(
    reply: Array, inbound: Array, pair: TensorPair, rules: TensorRules
) -> RefusalCode | None:
    """Return what is wrong with some numbers of a whole-numbered tensor."""
    if pair.rule.reply.dtype == "bool" and max(reply.max(), inbound.max()) > 1:
        return RefusalCode.RELEASE_TENSOR_RANGE
    # In float64 first: a difference that overflows int64 would wrap to a small one.
    rough = reply.astype(np.float64) - inbound.astype(np.float64)
    bound = min(rules.maximum_absolute, _LARGEST_INTEGER_STEP)
    return RefusalCode.RELEASE_TENSOR_RANGE if float(np.abs(rough).max()) > bound else None


def measure(pairs: Sequence[TensorPair], rules: TensorRules) -> float | tuple[Reason, ...]:
    """Check every number that will leave; return the sum of squares of the parameters' deltas, or what is wrong.

    Args:
        pairs: the tensors that may leave.
        rules: the policy's.

    Raises:
        StorageError: a file cannot be read.
    """
    findings = Findings()
    squares: list[float] = []
    with PairFiles(pairs) as files:

        def look(job: tuple[Piece, ...]) -> list[tuple[str, RefusalCode | None, float]]:
            # Infinities and NaN are looked for, not warned about; each thread has its own setting.
            with np.errstate(all="ignore"):
                return [(piece.pair.name, *_looked_at(files, piece, rules)) for piece in job]

        for results in in_order(look, jobs_of(pairs)):
            for name, code, part in results:
                findings.note(name, code)
                squares.append(part)
    return findings.reasons or math.fsum(squares)


def _looked_at(files: PairFiles, piece: Piece, rules: TensorRules) -> tuple[RefusalCode | None, float]:
    pair = piece.pair
    if pair.rule.role is TensorRole.INTEGER_BUFFER:
        codes = [problem_with_integers(*block, pair, rules) for block in files.blocks(piece)]
        return _first(codes), 0.0
    found: list[RefusalCode | None] = []
    squares = 0.0
    for delta in files.deltas(piece):
        found.append(problem_with_floats(delta, pair, rules))
        if pair.is_parameter:
            wide = delta.astype(np.float64)
            # Not `dot`: the library behind it would start threads of its own for so few numbers.
            squares += float(np.einsum("i,i->", wide, wide))
    return _first(found), squares if math.isfinite(squares) else 0.0


def _first(codes: Iterable[RefusalCode | None]) -> RefusalCode | None:
    found = [code for code in codes if code is not None]
    if RefusalCode.RELEASE_TENSOR_NOT_FINITE in found:
        return RefusalCode.RELEASE_TENSOR_NOT_FINITE
    return found[0] if found else None
