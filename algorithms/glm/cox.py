"""The Cox model's partial likelihood of one station, which is one stratum.

With a baseline hazard for each station the partial likelihood is a product over stations (Cox, "Regression models and life-tables",
1972; "Partial likelihood", 1975): nobody is compared with a patient of another hospital, so risk sets stay inside, and no table of
times leaves. Ties by Efron ("The efficiency of Cox's likelihood function for censored data", 1977) or Breslow (1974).
"""

import numpy as np

from algorithms.glm.design import Matrix, Vector


def cox_totals(
    columns: Matrix, time: Vector, event: Vector, coefficients: Vector, *, efron: bool
) -> tuple[float, Vector, Matrix]:
    """Return the logarithm of the partial likelihood, its gradient and minus its second derivatives.

    Who is censored at the moment of an event is still at risk then.

    Args:
        columns: Shape (N, P).
        time: of the event or of censoring. Shape (N,).
        event: 1 where it happened. Shape (N,).
        coefficients: Shape (P,).
        efron: how ties are taken; else Breslow's way.
    """
    width = columns.shape[1]
    linear = columns @ coefficients
    # A factor common to all risks has no effect, and keeps them from overflowing.
    risk = np.exp(linear - linear.max(initial=-np.inf)) if len(linear) else linear
    shift = float(linear.max(initial=0.0)) if len(linear) else 0.0
    weighted = columns * risk[:, np.newaxis]
    likelihood, score, information = 0.0, np.zeros(width), np.zeros((width, width))
    at_risk, first, second = 0.0, np.zeros(width), np.zeros((width, width))
    for moment in np.unique(time)[::-1]:
        here = time == moment
        at_risk += float(risk[here].sum())
        first = first + weighted[here].sum(axis=0)
        second = second + columns[here].T @ weighted[here]
        dying = here & (event == 1.0)
        if not (deaths := int(dying.sum())):
            continue
        # Efron: of those who die at one moment, each next one is compared with a share of them less.
        shares = np.arange(deaths) / deaths if efron else np.zeros(deaths)
        sums = at_risk - shares * float(risk[dying].sum())
        means = (first - np.outer(shares, weighted[dying].sum(axis=0))) / sums[:, np.newaxis]
        likelihood += float(linear[dying].sum()) - float(np.sum(np.log(sums) + shift))
        score = score + columns[dying].sum(axis=0) - means.sum(axis=0)
        of_dying = columns[dying].T @ weighted[dying]
        information = information + (
            second * np.sum(1 / sums) - of_dying * np.sum(shares / sums) - means.T @ means
        )
    return likelihood, score, information
