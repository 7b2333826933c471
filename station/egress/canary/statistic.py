"""How well scores tell members from patients held back: exact statistics of two small samples. Pure.

Higher scores are the members' in every function here. Ties count half, as in the Mann-Whitney statistic, of which the area under
the ROC curve is the normalised form (Hanley & McNeil 1982).
"""

import math
from collections.abc import Sequence


def area_under_curve(members: Sequence[float], held_back: Sequence[float]) -> float:
    """Return the probability that a member scores above a patient held back, ties counted half.

    Args:
        members: finite, at least one.
        held_back: likewise.

    Raises:
        ValueError: one side is empty.

    >>> area_under_curve([3.0, 2.0], [1.0, 2.0])
    0.875
    """
    if not members or not held_back:
        raise ValueError("a curve needs patients on both sides")
    above = 0.0
    ranked = sorted([(score, 0) for score in held_back] + [(score, 1) for score in members])
    below = at = 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        inside = sum(side for _, side in ranked[at:end])
        others = end - at - inside
        above += inside * (below + others / 2)
        below += others
        at = end
    return above / (len(members) * len(held_back))


def true_positive_rate(
    members: Sequence[float], held_back: Sequence[float], false_positive_rate: float
) -> float:
    """Return the share of members found by the best threshold that mistakes at most such a share of the others.

    What an average hides: an attack that is sure of a few patients (Carlini et al. 2022). With fewer than ``1 / rate`` patients
    held back it may mistake nobody.

    Raises:
        ValueError: one side is empty.

    >>> true_positive_rate([5.0, 4.0, 1.0], [3.0, 2.0], 0.01)
    0.6666666666666666
    """
    if not members or not held_back:
        raise ValueError("a rate needs patients on both sides")
    mistakes = math.floor(false_positive_rate * len(held_back))
    if mistakes >= len(held_back):
        return 1.0
    # The first score that may not be taken for a member's.
    bound = sorted(held_back, reverse=True)[mistakes]
    return sum(score > bound for score in members) / len(members)


def standard_error(members: int, held_back: int) -> float:
    """Return by how much the area under the curve strays around 0.5 where nothing tells the two apart (Mann & Whitney 1947).

    >>> round(standard_error(20, 20), 3)
    0.092
    """
    return math.sqrt((members + held_back + 1) / (12 * members * held_back))
