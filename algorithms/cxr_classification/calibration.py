"""A temperature for the network's logits, from numbers that hospitals can sum: no patient's score leaves for it.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017) divides all logits by one number T that makes the
loss on validation patients smallest. Each hospital tells that loss at a few fixed temperatures, beside the ordinary one at T = 1. The
mean over hospitals, by their labels, is the loss of all validation images together at each of them. It is taken by the numbers of images
that stations tell, to the nearest ten, of losses to four decimals; with several findings some of which are unknown it is near to that
loss and no more. In 1/T that loss is convex: the minimum lies beside the smallest of the means, and a parabola through it and its
neighbours gives it.
T is put into the network by dividing its last layer, so that a calibrated model is the same network with the same tensors.

Ranks do not change, and so no AUC does. One number for all hospitals cannot mend what differs between them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from algorithms.cxr_classification.loss import finding_loss
from algorithms.cxr_classification.model import HEAD

TEMPERATURES: Final[Mapping[str, float]] = {
    "loss_t50": 0.5,
    "loss_t71": math.sqrt(0.5),
    "loss": 1.0,
    "loss_t141": math.sqrt(2.0),
    "loss_t200": 2.0,
    "loss_t283": math.sqrt(8.0),
    "loss_t400": 4.0,
}
"""What an evaluation tells by the name of its metric, coolest first."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: to divide logits by.
        loss_before: the mean loss at 1.
        loss_after: the mean loss at `value`, as the parabola has it.
        at_the_end: whether it is the first or the last of the temperatures told, and a better one may lie beyond.
    """

    value: float
    loss_before: float
    loss_after: float
    at_the_end: bool


def losses_at(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return the mean loss at each temperature, by the metric's name.

    Args:
        logits: shape (N, findings).
        labels: 0, 1 or not a number. Shape (N, findings).
    """
    even = torch.ones_like(labels[0])
    return {name: float(finding_loss(logits / value, labels, even)) for name, value in TEMPERATURES.items()}


def brier(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean squared difference of probability and label (Brier 1950), over what is known."""
    known = ~torch.isnan(labels)
    return float(torch.mean((torch.sigmoid(logits)[known] - labels[known]) ** 2))


def fit_temperature(losses: Mapping[str, float]) -> Temperature:
    """Return the temperature with the smallest loss.

    Args:
        losses: the mean over hospitals of each metric in `TEMPERATURES`.

    Raises:
        ValueError: one is missing or not a number.
    """
    missing = [name for name in TEMPERATURES if not math.isfinite(losses.get(name, math.nan))]
    if missing:
        raise ValueError(f"the losses at some temperatures are missing: {', '.join(missing)}")
    points = [(1 / value, losses[name]) for name, value in TEMPERATURES.items()]
    # Of temperatures that are equally good the one that changes least.
    best = min(range(len(points)), key=lambda at: (points[at][1], abs(math.log(points[at][0]))))
    middle = min(max(best, 1), len(points) - 2)
    (x0, y0), (x1, y1), (x2, y2) = points[middle - 1 : middle + 2]
    # Newton's form of the parabola through three points: slope of the first chord, and how the slopes change.
    slope, bend = (y1 - y0) / (x1 - x0), ((y2 - y1) / (x2 - x1) - (y1 - y0) / (x1 - x0)) / (x2 - x0)
    lowest = points[best][0] if bend <= 0 else (x0 + x1) / 2 - slope / (2 * bend)
    coldest, hottest = points[0][0], points[-1][0]
    within = min(max(lowest, hottest), coldest)
    after = y0 + slope * (within - x0) + bend * (within - x0) * (within - x1)
    return Temperature(1 / within, losses["loss"], after, at_the_end=within in {coldest, hottest})


@torch.no_grad()
def divide_logits(state: Mapping[str, torch.Tensor], temperature: float) -> dict[str, torch.Tensor]:
    """Return a network's tensors with which every logit is divided by the temperature."""
    last = {f"{HEAD}.weight", f"{HEAD}.bias"}
    return {name: tensor / temperature if name in last else tensor for name, tensor in state.items()}


def calibration_error(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width (Naeini et al. 2015; Guo et al. 2017).

    Args:
        probabilities: shape (N,).
        labels: 0 or 1. Shape (N,).
        bins: of which the last holds 1 too.
    """
    place = torch.clamp((probabilities * bins).long(), max=bins - 1)
    gaps = torch.zeros(bins).index_add_(0, place, probabilities - labels)
    return float(gaps.abs().sum() / len(labels))
