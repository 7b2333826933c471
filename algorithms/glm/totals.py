"""A station's sums at given coefficients: log-likelihood, score and information of all its patients together.

Sums over patients of one station add up over stations to the sums over all patients, and Newton's step needs nothing else: that is
why federated equals pooled here. Links are canonical, so the information is the expected and the observed one, and Newton's step is
Fisher scoring (McCullagh and Nelder, Generalized Linear Models, 1989, section 2.5).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from algorithms.glm.cox import cox_totals
from algorithms.glm.design import Design, Matrix, Vector
from algorithms.glm.specification import Family


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a station's patients.

    Attributes:
        log_likelihood: of a linear model minus half the sum of squared residuals: the part that depends on the coefficients.
        score: its gradient. Shape (P,).
        information: minus its second derivatives. Shape (P, P).
        pearson: the sum of squared Pearson residuals; 0 of a Cox model.
    """

    log_likelihood: float
    score: Vector
    information: Matrix
    pearson: float

    @property
    def largest(self) -> float:
        """The largest number in it; infinite or not a number where one is."""
        each = (self.log_likelihood, self.pearson, *np.abs(self.score), *np.abs(self.information).ravel())
        return float(np.max(np.abs(each)))


def totals_at(design: Design, family: Family, coefficients: Vector, *, efron: bool) -> Totals:
    """Return the sums at given coefficients.

    Args:
        design: the station's patients.
        family: of the model.
        coefficients: in the order of the columns. Shape (P,).
        efron: how ties of a Cox model are taken; else Breslow's way.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if family is Family.COX:
            found = cox_totals(design.columns, design.time, design.outcome, coefficients, efron=efron)
            return Totals(*found, pearson=0.0)
        linear = design.columns @ coefficients + design.offset
        mean, variance, likelihood = _family(family, design.outcome, linear)
        residual = design.outcome - mean
        # Where a fitted mean is 0 or 1 to the last bit, there is nothing to divide by.
        pearson = float(np.sum(residual**2 / np.maximum(variance, _SMALLEST)))
        return Totals(likelihood, design.columns.T @ residual, _weighted(design.columns, variance), pearson)


def start_at_means(design: Design, family: Family, *, efron: bool) -> Totals:
    """Return the sums of the first round, whose Newton step from zero leads near the solution.

    For a logistic or Poisson model these are the working responses at means that lie near the outcomes themselves, which is how
    such fits are started (McCullagh and Nelder 1989, section 2.5): from zero a count of hundreds would be overshot by far. The
    log-likelihood is that at zero, which the next round is compared with.
    """
    zero = np.zeros(design.columns.shape[1])
    at_zero = totals_at(design, family, zero, efron=efron)
    if family is Family.LOGISTIC:
        mean = (design.outcome + 0.5) / 2
        weights = mean * (1 - mean)
        working = np.log(mean / (1 - mean)) + (design.outcome - mean) / weights
    elif family is Family.POISSON:
        mean = design.outcome + 0.1
        weights = mean
        working = np.log(mean) - design.offset + (design.outcome - mean) / weights
    else:
        return at_zero
    with np.errstate(over="ignore", invalid="ignore"):
        information = _weighted(design.columns, weights)
        score = design.columns.T @ (weights * working)
    # Residuals at zero say nothing, and of large counts they would be out of bounds.
    return Totals(at_zero.log_likelihood, score, information, 0.0)


_SMALLEST: Final = 1e-12


def _family(family: Family, outcome: Vector, linear: Vector) -> tuple[Vector, Vector, float]:
    """Return fitted means, variances and the log-likelihood."""
    if family is Family.LOGISTIC:
        mean = 0.5 * (1.0 + np.tanh(linear / 2))
        return mean, mean * (1 - mean), float(np.sum(outcome * linear - np.logaddexp(0.0, linear)))
    if family is Family.POISSON:
        mean = np.exp(linear)
        constant = sum(math.lgamma(count + 1) for count in outcome)
        return mean, mean, float(np.sum(outcome * linear - mean)) - constant
    residual = outcome - linear
    return linear, np.ones_like(linear), -0.5 * float(residual @ residual)


def _weighted(columns: Matrix, weights: Vector) -> Matrix:
    return np.asarray(columns.T @ (columns * weights[:, np.newaxis]))
