"""Local training: plain torch, seeded, the same steps on CPU and GPU.

On a GPU: mixed precision, channels last, patches copied from pinned memory while the last step still computes and read by a thread
ahead of it, and no result copied back before the round ends. On a CPU in float32, where equal seeds give equal bytes.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch.utils.data import Dataset

from algorithms.clientapp.optimising import finite_loss, optimiser_for
from algorithms.clientapp.precision import MixedPrecision
from algorithms.clientapp.proximal import ProximalTerm
from algorithms.ct_segmentation.sampling import Sampling, patches

_READ_AHEAD: Final = 8
"""Patches that wait for a GPU."""

Batch = tuple[torch.Tensor, torch.Tensor]


WEIGHT_DECAY: Final = 1e-5
"""Of AdamW."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train for one round.

    Attributes:
        learning_rate: of the optimiser.
        local_epochs: passes over the local cases.
        batch_size: patches per step.
        plain_sgd: plain gradient descent without momentum or decay in the place of AdamW.
        proximal_mu: weight of FedProx's proximal term; 0 is none.
        round: from 1; with the sampling's seed it decides what is drawn.
    """

    learning_rate: float
    local_epochs: int
    batch_size: int
    plain_sgd: bool
    proximal_mu: float
    round: int


def criterion() -> nn.Module:
    """Return the loss: Dice and cross-entropy in equal parts, background counted, of each patch by itself.

    Dice over a whole batch would make a patch's gradient depend on what stands beside it, and the sum over hospitals no sum.
    """
    loss: nn.Module = DiceCELoss(to_onehot_y=True, softmax=True, batch=False)
    return loss


def train(
    network: nn.Module,
    cases: Dataset[Any],
    recipe: Recipe,
    sampling: Sampling,
    place: torch.device,
    dtype: torch.dtype | None = None,
) -> float:
    """Train in place and return the mean loss of the last epoch, the proximal term not counted.

    Args:
        network: holds the inbound weights.
        cases: items from paths or from memory.
        recipe: how to train.
        sampling: what on.
        place: where.
        dtype: of the matrix work; None chooses by the device.

    Raises:
        VolumeError: a file is none that can be mapped, or a label map not on its image's grid.
        TrainError: MASK_VALUES, a label map has a value that stands for no structure; LOSS_NOT_FINITE, training diverged.
    """
    network.to(place).train()
    precision = MixedPrecision(place, dtype)
    optimiser = optimiser_for(network, recipe.learning_rate, WEIGHT_DECAY, plain_sgd=recipe.plain_sgd)
    proximal = ProximalTerm(network.parameters(), recipe.proximal_mu)
    loss_of = criterion()
    total, seen = torch.zeros((), device=place), 0
    for epoch in range(recipe.local_epochs):
        total, seen = torch.zeros((), device=place), 0
        drawn = patches(cases, sampling, (recipe.round, epoch), place)
        for images, labels in _batches(_ahead(drawn, place), recipe.batch_size):
            optimiser.zero_grad(set_to_none=True)
            with precision.autocast():
                loss = loss_of(network(images).float(), labels)
            precision.backward(loss, optimiser)
            proximal.add_gradient()
            precision.step(optimiser)
            # Stays on the device: asking for the number would wait for the step.
            total += loss.detach() * len(labels)
            seen += len(labels)
    return finite_loss(total / seen)


def _ahead(drawn: Iterator[Batch], place: torch.device) -> Iterator[Batch]:
    """Read ahead by one thread, so what is drawn stays the same; on a CPU it would take the processor from the step."""
    if place.type != "cuda":
        yield from drawn
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = deque(thread.submit(next, drawn, None) for _ in range(_READ_AHEAD))
        while (found := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, drawn, None))
            yield found


def _batches(drawn: Iterable[Batch], size: int) -> Iterator[Batch]:
    each = iter(drawn)
    while batch := list(itertools.islice(each, size)):
        images = torch.stack([image for image, _ in batch])
        yield (
            images.contiguous(memory_format=torch.channels_last_3d),
            torch.stack([label for _, label in batch]),
        )
