"""The optimiser of a round, and the check that its training kept to numbers: the same for every torch train."""

import math

import torch
from torch import nn

from algorithms.clientapp.failures import TrainError


def optimiser_for(
    network: nn.Module, learning_rate: float, weight_decay: float, *, plain_sgd: bool
) -> torch.optim.Optimizer:
    """Return AdamW, or gradient descent without momentum and weight decay, whose steps add up over hospitals to one place's."""
    if plain_sgd:
        return torch.optim.SGD(network.parameters(), lr=learning_rate)
    return torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)


def finite_loss(mean: torch.Tensor) -> float:
    """Return a round's mean loss.

    Raises:
        TrainError: LOSS_NOT_FINITE, training diverged.
    """
    loss = float(mean)
    if not math.isfinite(loss):
        raise TrainError("LOSS_NOT_FINITE", "training diverged: a smaller learning_rate keeps it finite")
    return loss
