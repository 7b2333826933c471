"""From a train's losses on a blind cohort to what the station thinks of its update. Pure: numbers in, values out.

Two attacks of the literature, and the worse of them counts: the loss itself (Yeom et al. 2018), and how much the update lowered it,
which takes out that some patients are easy for every model (difficulty calibration, Watson et al. 2021). A patient's score is the
mean over their cases: the patient is what is protected.

Invariants: an answer that is not one finite number per case, that is the same for all, or that differs for the same case laid
twice, makes no score; what makes no score does not leave.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import JsonValue

from policies.refusals import Reason, RefusalCode
from station.cohorts.blind import BlindCase
from station.egress.canary.statistic import area_under_curve, standard_error, true_positive_rate

MINIMUM_PATIENTS: Final = 10
"""On each side; with fewer chance alone moves the area by more than 0.13."""

LOW_RATE: Final = 0.01
_MOST: Final = 1e30
_SAME_ABSOLUTE: Final = 0.01
_SAME_RELATIVE: Final = 0.05


class Unscored(StrEnum):
    """Why there is no score; for the hospital's operator and for the researcher's dry run."""

    FAILED = "the container that was to score failed"
    TOO_FEW = "too few patients on one side to see whether the update tells its members"
    NO_NUMBERS = "the answer is not one number per case"
    NOT_FINITE = "the answer holds a number that is not finite"
    CONSTANT = "the answer is the same for every case"
    NOT_REPEATABLE = (
        "the same case has two scores: augmentation, dropout or batch statistics are on, or order matters"
    )


@dataclass(frozen=True, slots=True)
class MembershipScore:
    """How well an update tells its members. Stays at the station.

    Attributes:
        loss_area: area under the ROC curve of the loss after the update.
        gain_area: of how much the update lowered the loss.
        loss_found: members found at `LOW_RATE` false positives by the loss, as a share.
        gain_found: likewise, by how much it was lowered.
        patients: on each side.
    """

    loss_area: float
    gain_area: float
    loss_found: float
    gain_found: float
    patients: int

    @property
    def area(self) -> float:
        """The worse of the two: what a limit is held against."""
        return max(self.loss_area, self.gain_area)

    @property
    def uncertainty(self) -> float:
        """One standard error of an area where nothing tells the sides apart."""
        return standard_error(self.patients, self.patients)


def score_update(
    cases: Sequence[BlindCase], before: Sequence[JsonValue], after: Sequence[JsonValue]
) -> MembershipScore | Unscored:
    """Score an update.

    1. Both answers are one finite number per case, and the one about the update is not the same for all.
    2. A case that was laid twice has the same loss twice.
    3. Losses are averaged per patient, the second copies left out.
    4. There are patients enough, and both statistics are taken over them.

    Args:
        cases: who is who, in the order of the datalist that the train was given.
        before: its losses with the weights that the round started from.
        after: with those and what would be released.
    """
    first, second = _losses(before, len(cases)), _losses(after, len(cases))
    for found in (first, second):
        if isinstance(found, Unscored):
            return found
    if isinstance(first, Unscored) or isinstance(second, Unscored):
        return Unscored.NO_NUMBERS
    if len(set(second)) < 2:
        return Unscored.CONSTANT
    if not (_repeatable(cases, first) and _repeatable(cases, second)):
        return Unscored.NOT_REPEATABLE
    patients = {(case.member, case.patient) for case in cases}
    sides = sum(member for member, _ in patients), sum(not member for member, _ in patients)
    if min(sides) < MINIMUM_PATIENTS:
        return Unscored.TOO_FEW
    loss = _by_patient(cases, [-value for value in second])
    gain = _by_patient(cases, [old - new for old, new in zip(first, second, strict=True)])
    return MembershipScore(
        area_under_curve(*loss),
        area_under_curve(*gain),
        true_positive_rate(*loss, LOW_RATE),
        true_positive_rate(*gain, LOW_RATE),
        min(sides),
    )


def membership_reason(score: MembershipScore | Unscored, limit: float) -> Reason | None:
    """Return why an update must stay, or None where it may go. The reason tells no number.

    Args:
        score: of the update.
        limit: the policy's; a score of exactly that much passes.
    """
    if score is Unscored.TOO_FEW:
        return Reason(RefusalCode.RELEASE_TOO_FEW_PATIENTS, score.value)
    if isinstance(score, Unscored):
        return Reason(RefusalCode.RELEASE_UNSCORED, score.value)
    if not score.area <= limit:
        return Reason(RefusalCode.RELEASE_MEMBERSHIP)
    return None


def _losses(answer: Sequence[JsonValue], cases: int) -> list[float] | Unscored:
    numbers: list[float] = []
    for value in answer:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Unscored.NO_NUMBERS
        if not -_MOST <= value <= _MOST:
            return Unscored.NOT_FINITE
        numbers.append(float(value))
    return numbers if len(numbers) == cases else Unscored.NO_NUMBERS


def _repeatable(cases: Sequence[BlindCase], losses: Sequence[float]) -> bool:
    """Whether cases laid twice have one loss; some room is left for the arithmetic of GPUs."""
    return all(
        math.isclose(losses[case.twin_of], loss, rel_tol=_SAME_RELATIVE, abs_tol=_SAME_ABSOLUTE)
        for case, loss in zip(cases, losses, strict=True)
        if case.twin_of is not None
    )


def _by_patient(cases: Sequence[BlindCase], scores: Sequence[float]) -> tuple[list[float], list[float]]:
    sums: dict[tuple[bool, int], list[float]] = {}
    for case, score in zip(cases, scores, strict=True):
        if case.twin_of is None:
            sums.setdefault((case.member, case.patient), []).append(score)
    means = {key: math.fsum(values) / len(values) for key, values in sums.items()}
    return (
        [mean for (member, _), mean in means.items() if member],
        [mean for (member, _), mean in means.items() if not member],
    )
