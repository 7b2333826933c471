"""Whether scores mean what they say: Brier score, expected calibration error, calibration intercept and slope.

Intercept and slope are those of Cox ("Two further applications of a model for binary regression", 1958): of a logistic regression of
the finding on the score's logit. The intercept is taken with the slope fixed at 1 (calibration in the large): above 0 where the finding is
more frequent than predicted. The slope is below 1 where scores are too extreme. (Van Calster et al., "Calibration: the Achilles heel of
predictive analytics", 2019.) Pure.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

BINS: Final = 10
_EDGE: Final = 1e-6
"""Scores this near to 0 and 1 have a logit all the same."""
_STEPS: Final = 50
_STILL: Final = 1e-10
_FAR: Final = 50.0


def brier(scores: Values, labels: Values) -> float:
    """Return the mean squared error of the scores (Brier 1950).

    Args:
        scores: 0 to 1. Shape (N,).
        labels: 0 or 1. Shape (N,).
    """
    return float(np.mean((scores - labels) ** 2))


def expected_error(scores: Values, labels: Values, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of one width (Naeini, Cooper and Hauskrecht 2015).

    Args:
        scores: 0 to 1. Shape (N,).
        labels: 0 or 1. Shape (N,).
        bins: how many.
    """
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    found = 0.0
    for place in np.unique(places):
        inside = places == place
        found += float(np.abs(labels[inside].mean() - scores[inside].mean())) * float(inside.mean())
    return found


def intercept(scores: Values, labels: Values) -> float | None:
    """Return the calibration intercept with a slope of 1; None where all patients are of one class."""
    found = _fitted(np.ones((len(scores), 1)), _logits(scores), labels)
    return None if found is None else float(found[0])


def slope(scores: Values, labels: Values) -> float | None:
    """Return the calibration slope; None where there is none: one class, one score, or classes that scores part altogether."""
    logits = _logits(scores)
    # The fit does not change with the unit, but its steps do.
    middle, spread = float(logits.mean()), float(logits.std())
    if spread < _STILL:
        return None
    design = np.column_stack([np.ones(len(scores)), (logits - middle) / spread])
    found = _fitted(design, np.zeros(len(scores)), labels)
    return None if found is None else float(found[1]) / spread


def _logits(scores: Values) -> Values:
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.log(inside / (1 - inside))


def _fitted(design: Values, offset: Values, labels: Values) -> Values | None:
    """Return a logistic regression's coefficients by Newton's steps, halved where they go too far; None where they do not end."""
    if labels.min() == labels.max():
        return None
    beta = np.zeros(design.shape[1])
    loss = _loss(design @ beta + offset, labels)
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-(design @ beta + offset)))
        gradient = design.T @ (labels - chances)
        curvature = design.T @ (design * (chances * (1 - chances))[:, None])
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return None
        while (after := _loss(design @ (beta + step) + offset, labels)) > loss and np.abs(
            step
        ).max() > _STILL:
            step = step / 2
        beta, loss = beta + step, min(after, loss)
        if np.abs(beta).max() > _FAR:
            return None
        if np.abs(step).max() < _STILL:
            return beta
    return None


def _loss(eta: Values, labels: Values) -> float:
    return float(np.sum(np.logaddexp(0, eta) - labels * eta))
