"""Newton's next step from the sums of all stations, taken by every station alike.

The arrays of a round hold the coefficients that were tried and the sums over all stations at these. From there on everything is
arithmetic without data, so every station does it and comes to the same place; nobody in the middle computes. A step that makes the
log-likelihood smaller is halved until it does not. Where other stations or patients took part than in the round before, two
log-likelihoods cannot be compared and the step stands as it is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from algorithms.glm.design import Matrix, Vector
from algorithms.glm.errors import Code, GlmError
from algorithms.glm.state import State, Sums

SINGULAR: Final = 1e-10
"""The smallest eigenvalue of the information in units of its own diagonal, below which columns say the same."""

MOST: Final = 10.0
"""Of a logistic, Poisson or Cox coefficient: e to the 10th is no ratio of odds, rates or hazards, but a category without events. Where
one grows without end it does so by about one a round."""

_SLACK: Final = 1e-10


@dataclass(frozen=True, slots=True)
class Ridge:
    """A penalty on large coefficients: minus half the weight times their squares, beside the mean log-likelihood of a patient.

    Attributes:
        weight: 0 for none. That of scikit-learn's `C` is 1 / (patients * weight), statsmodels' `alpha` is the weight.
        free: the first so many coefficients have no penalty: the intercept.
    """

    weight: float
    free: int

    def penalties(self, columns: int) -> Vector:
        """Return each coefficient's."""
        return np.where(np.arange(columns) < self.free, 0.0, self.weight)


@dataclass(frozen=True, slots=True)
class Step:
    """Where the next sums are taken.

    Attributes:
        trial: coefficients. Shape (P,).
        accepted: the best so far. Shape (P,).
        accepted_log_likelihood: at those, divided by N.
        accepted_population: of the sums at those. Shape (2,).
        largest: how far the furthest coefficient moved; 0 in the first round.
    """

    trial: Vector
    accepted: Vector
    accepted_log_likelihood: float
    accepted_population: Vector
    largest: float


def next_step(state: State, ridge: Ridge, *, bounded: bool) -> Step:
    """Return the step from a state.

    Args:
        state: of the round before.
        ridge: the penalty.
        bounded: whether coefficients are logarithms of ratios, which have a largest that makes sense.

    Raises:
        GlmError: the columns say the same, or a coefficient runs away.
    """
    if state.sums.patients <= 0:
        return Step(
            state.coefficients,
            state.accepted,
            state.accepted_log_likelihood,
            state.accepted_population,
            0.0,
        )
    if _is_worse(state, ridge):
        trial = (state.accepted + state.coefficients) / 2
        accepted = (state.accepted, state.accepted_log_likelihood, state.accepted_population)
    else:
        trial = state.coefficients + newton_direction(state.coefficients, state.sums, ridge)
        accepted = (state.coefficients, state.sums.log_likelihood, state.sums.population)
    if bounded and np.any(np.abs(trial[ridge.free :]) > MOST):
        raise GlmError(
            Code.SEPARATED,
            "a coefficient grows without end: a category or a number separates who had the outcome from who had not. "
            "Put groups together in model.json, or set ridge",
        )
    return Step(trial, *accepted, largest=float(np.max(np.abs(trial - state.coefficients))))


def newton_direction(coefficients: Vector, sums: Sums, ridge: Ridge) -> Vector:
    """Return what solves the equations of the sums: the step to where their quadratic is largest.

    Raises:
        GlmError: they have no one solution.
    """
    penalties = ridge.penalties(len(coefficients))
    matrix = sums.information / sums.patients + np.diag(penalties)
    gradient = sums.score / sums.patients - penalties * coefficients
    scale = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    if np.any(scale == 0.0) or _smallest_eigenvalue(matrix / np.outer(scale, scale)) < SINGULAR:
        raise GlmError(
            Code.RANK_DEFICIENT,
            "the columns say the same, or nobody anywhere is in one of them: leave one out of model.json, or set ridge",
        )
    return np.asarray(np.linalg.solve(matrix / np.outer(scale, scale), gradient / scale) / scale)


def _smallest_eigenvalue(matrix: Matrix) -> float:
    return float(np.linalg.eigvalsh(matrix)[0])


def _is_worse(state: State, ridge: Ridge) -> bool:
    """Whether a trial is worse than the best so far, and the two can be compared."""
    before = state.accepted_population
    if before[0] <= 0 or not np.allclose(before, state.sums.population, rtol=1e-6, atol=0.0):
        return False
    penalties = ridge.penalties(len(state.coefficients))

    def objective(log_likelihood: float, coefficients: Vector) -> float:
        return log_likelihood / state.sums.patients - float(penalties @ coefficients**2) / 2

    reached = objective(state.sums.log_likelihood, state.coefficients)
    best = objective(state.accepted_log_likelihood, state.accepted)
    return reached < best - _SLACK * (1 + abs(best))
