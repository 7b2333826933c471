"""What the arrays of a regression hold, and how they cross averages and rounded differences without losing anything.

Sums from means. An orchestrator averages: each station's numbers count by its rounded number of examples, `n_i` of N together. A
station answers its sums divided by its own `n_i`; the average of those is the sum over all stations divided by N, exactly, although no
`n_i` is the number of its patients. Newton's step is a ratio of sums, so N cancels in it. Standard errors need N, which no average
tells (it would be the same if every station were there twice): who reads the result has it from the provenance statement.

Nothing lost on the way. What leaves a station is the difference from the inbound arrays, rounded to float32 at most. Each tensor has
a second one, `.rest`, which carries what the rounding of the first leaves over; a number is the sum of both. So two float32 carry
48 bits of a difference, and the sums over stations are those of double precision but for the last few bits. A policy with bfloat16 or
float16 leaves 8 or 11 bits of the first and nothing useful of the second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from algorithms.glm.design import Design, Matrix, Vector
from algorithms.glm.errors import Code, GlmError
from algorithms.glm.totals import Totals

REST: Final = ".rest"


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over all stations, each divided by N.

    Attributes:
        log_likelihood: at the coefficients.
        score: Shape (P,).
        information: Shape (P, P).
        pearson: sum of squared Pearson residuals.
        population: of how many patients they are, and of how many stations. Shape (2,).
    """

    log_likelihood: float
    score: Vector
    information: Matrix
    pearson: float
    population: Vector

    @property
    def patients(self) -> float:
        """Complete patients, divided by N; 0 where no station has summed anything yet."""
        return float(self.population[0])

    @classmethod
    def of(cls, totals: Totals, design: Design) -> "Sums":
        """Return what a station answers: its own sums as averaging takes them."""
        by = design.examples
        return cls(
            totals.log_likelihood / by,
            totals.score / by,
            totals.information / by,
            totals.pearson / by,
            np.array([design.complete, 1.0]) / by,
        )


@dataclass(frozen=True, slots=True)
class State:
    """Where the regression stands.

    Attributes:
        coefficients: that were tried. Shape (P,).
        sums: at these.
        accepted: the best coefficients so far: what a trial that is no better goes back towards. Shape (P,).
        accepted_log_likelihood: at those, divided by N.
        accepted_population: of the sums at those. Shape (2,).
    """

    coefficients: Vector
    sums: Sums
    accepted: Vector
    accepted_log_likelihood: float
    accepted_population: Vector


def empty_state(columns: int) -> State:
    """Return where a regression begins: at zero, with nothing summed."""
    zero, nothing = np.zeros(columns), np.zeros(2)
    return State(zero, Sums(0.0, zero, np.zeros((columns, columns)), 0.0, nothing), zero, 0.0, nothing)


def tensors_of(state: State) -> dict[str, Vector]:
    """Return a state's numbers by name; of the symmetric information the lower triangle, row by row."""
    lower = np.tril_indices(len(state.coefficients))
    return {
        "coefficients": state.coefficients,
        "log_likelihood": np.array([state.sums.log_likelihood]),
        "score": state.sums.score,
        "information": state.sums.information[lower],
        "pearson": np.array([state.sums.pearson]),
        "population": state.sums.population,
        "accepted.coefficients": state.accepted,
        "accepted.log_likelihood": np.array([state.accepted_log_likelihood]),
        "accepted.population": state.accepted_population,
    }


def initial_arrays(columns: int) -> dict[str, Vector]:
    """Return the arrays that a run starts from."""
    numbers = tensors_of(empty_state(columns))
    return {name + end: np.zeros_like(each) for name, each in numbers.items() for end in ("", REST)}


def read_state(arrays: Mapping[str, Vector], columns: int) -> State:
    """Return the state that inbound arrays hold.

    Args:
        arrays: by name.
        columns: how many coefficients there are.

    Raises:
        GlmError: they are of another model, or hold what is no number.
    """
    wanted = initial_arrays(columns)
    if {name: each.shape for name, each in arrays.items()} != {
        name: each.shape for name, each in wanted.items()
    } or any(each.dtype != np.float64 for each in arrays.values()):
        raise GlmError(
            Code.WEIGHTS_DO_NOT_FIT,
            "the weights are of another model: make them with `pht-train init-weights` from this train",
        )
    found = {name: arrays[name] + arrays[name + REST] for name in tensors_of(empty_state(columns))}
    if not all(np.isfinite(each).all() for each in found.values()):
        raise GlmError(Code.WEIGHTS_DO_NOT_FIT, "the weights hold what is no number")
    information = np.zeros((columns, columns))
    information[np.tril_indices(columns)] = found["information"]
    information = information + np.tril(information, -1).T
    return State(
        found["coefficients"],
        Sums(
            float(found["log_likelihood"][0]),
            found["score"],
            information,
            float(found["pearson"][0]),
            found["population"],
        ),
        found["accepted.coefficients"],
        float(found["accepted.log_likelihood"][0]),
        found["accepted.population"],
    )


def write_state(state: State, inbound: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return the arrays of an answer, so that what the rounding of differences takes from one tensor is in the other.

    Args:
        state: what is to arrive.
        inbound: the arrays of the question; differences are taken from them.
    """
    answer: dict[str, Vector] = {}
    for name, numbers in tensors_of(state).items():
        before, rest = inbound[name], inbound[name + REST]
        difference = numbers - (before + rest)
        rounded = difference.astype(np.float32).astype(np.float64)
        answer[name] = before + rounded
        answer[name + REST] = rest + (difference - rounded)
    return answer
