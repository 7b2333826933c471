"""Flower's own strategies, a piece of a tensor at a time.

All but Krum treat each number alike: what becomes of it depends on that number of each station, on the weight it
started from and on its own moments of earlier rounds. So the strategy object is given a model of one flat piece, with the
attributes that Flower keeps between rounds (`current_arrays`, `m_t`, `v_t`, `momentum_vector`) set to the piece's, and its
`aggregate_train` is Flower's arithmetic to the last bit. That these attributes are what they were in 1.41.0 is held by tests that
compare whole models over several rounds.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
)
from flwr.serverapp.strategy.fedopt import FedOpt
from numpy.typing import NDArray

from orchestrator.federation.strategies.update import Floats
from policies.errors import UsageError
from policies.strategies import ParameterValue, StrategyName

EXAMPLES = "num-examples"
_PIECE = "piece"


class Rule(Protocol):
    """What becomes of one piece.

    Attributes:
        moments: the names of what is kept between rounds, as Flower calls it; each of the piece's shape.
    """

    moments: tuple[str, ...]

    def combine(
        self,
        round_: int,
        start: Floats,
        moved: Sequence[Floats],
        examples: Sequence[int],
        kept: Sequence[Floats] | None,
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Return the next weights of a piece, and its moments.

        Args:
            round_: Flower's server round.
            start: what the stations started from.
            moved: each station's weights.
            examples: each station's.
            kept: the moments after the round before, in the order of `moments`; None in the first.
        """


class Stateless:
    """FedAvg, FedMedian, FedTrimmedAvg: nothing is kept."""

    moments: tuple[str, ...] = ()

    def __init__(self, strategy: FedAvg) -> None:
        self._strategy = strategy

    def combine(
        self,
        round_: int,
        start: Floats,
        moved: Sequence[Floats],
        examples: Sequence[int],
        kept: Sequence[Floats] | None,
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """See `Rule.combine`."""
        return _aggregated(self._strategy, round_, moved, examples), ()


class Adaptive:
    """FedAdam, FedYogi, FedAdagrad: first and second moments of the mean's steps."""

    moments: tuple[str, ...] = ("m_t", "v_t")

    def __init__(self, strategy: FedOpt) -> None:
        self._strategy = strategy

    def combine(
        self,
        round_: int,
        start: Floats,
        moved: Sequence[Floats],
        examples: Sequence[int],
        kept: Sequence[Floats] | None,
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """See `Rule.combine`."""
        strategy = self._strategy
        strategy.current_arrays = {_PIECE: start}
        strategy.m_t, strategy.v_t = (None, None) if kept is None else ({_PIECE: each} for each in kept)
        result = _aggregated(strategy, round_, moved, examples)
        if strategy.m_t is None or strategy.v_t is None:
            raise UsageError("the strategy kept no moments")
        return result, (_like(strategy.m_t[_PIECE], start), _like(strategy.v_t[_PIECE], start))


class Momentum:
    """FedAvgM: the sum of the mean's steps, each round's less than the one after."""

    def __init__(self, strategy: FedAvgM) -> None:
        self._strategy = strategy
        self.moments: tuple[str, ...] = ("momentum_vector",) if strategy.server_momentum > 0 else ()

    def combine(
        self,
        round_: int,
        start: Floats,
        moved: Sequence[Floats],
        examples: Sequence[int],
        kept: Sequence[Floats] | None,
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """See `Rule.combine`."""
        strategy = self._strategy
        strategy.current_arrays = ArrayRecord({_PIECE: FlowerArray(start)})
        strategy.momentum_vector = [*kept] if kept else None
        result = _aggregated(strategy, round_, moved, examples)
        if not self.moments:
            return result, ()
        if strategy.momentum_vector is None:
            raise UsageError("the strategy kept no momentum")
        return result, (_like(strategy.momentum_vector[0], start),)


def make_rule(name: StrategyName, parameters: Mapping[str, ParameterValue]) -> Rule:
    """Return how a strategy treats each number; of Krum, how the updates that it keeps are combined.

    Args:
        name: the strategy.
        parameters: every one that it has (`policies.strategies.parameters_of`).

    Raises:
        UsageError: it combines nothing.
    """
    # Flower tells each call of ours; a round has one per piece.
    logging.getLogger("flwr").setLevel(logging.WARNING)
    values = {key: float(value) for key, value in parameters.items()}
    key = EXAMPLES
    match name:
        case "FedAvg" | "FedProx" | "Krum":
            return Stateless(FedAvg(weighted_by_key=key))
        case "FedMedian":
            return Stateless(FedMedian(weighted_by_key=key))
        case "FedTrimmedAvg":
            return Stateless(FedTrimmedAvg(weighted_by_key=key, beta=values["beta"]))
        case "FedAdam" | "FedYogi":
            made = FedAdam if name == "FedAdam" else FedYogi
            beta_1, beta_2 = values["beta_1"], values["beta_2"]
            eta, tau = values["eta"], values["tau"]
            return Adaptive(made(weighted_by_key=key, eta=eta, beta_1=beta_1, beta_2=beta_2, tau=tau))
        case "FedAdagrad":
            return Adaptive(FedAdagrad(weighted_by_key=key, eta=values["eta"], tau=values["tau"]))
        case "FedAvgM":
            rate, momentum = values["server_learning_rate"], values["server_momentum"]
            return Momentum(FedAvgM(weighted_by_key=key, server_learning_rate=rate, server_momentum=momentum))
        case "none":
            raise UsageError("this strategy combines nothing")


def _like(values: NDArray[Any], start: Floats) -> Floats:
    """Return moments in the piece's own width, in which they are stored."""
    return _floats(values, wide=start.dtype == np.float64)


def _floats(values: NDArray[Any], *, wide: bool) -> Floats:
    return values.astype(np.float64, copy=False) if wide else values.astype(np.float32, copy=False)


def _aggregated(strategy: FedAvg, round_: int, pieces: Sequence[Floats], examples: Sequence[int]) -> Floats:
    messages = [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({_PIECE: FlowerArray(piece)}),
                    "metrics": MetricRecord({EXAMPLES: count}),
                }
            ),
            dst_node_id=1,
            message_type="train",
        )
        for piece, count in zip(pieces, examples, strict=True)
    ]
    arrays, _ = strategy.aggregate_train(round_, messages)
    if arrays is None:
        raise UsageError("the strategy returned no arrays")
    combined = np.asarray(arrays[_PIECE].numpy())
    return _floats(combined, wide=combined.dtype == np.float64)
