"""Local training and scoring: plain torch, seeded, the same steps on CPU and GPU."""

from dataclasses import dataclass

import torch
from monai.metrics import ROCAUCMetric
from monai.transforms import Compose, RandFlip, RandGaussianNoise, RandRotate, RandZoom
from torch import nn
from torch.utils.data import TensorDataset

from algorithms.clientapp.proximal import ProximalTerm


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train for one round.

    Attributes:
        learning_rate: of AdamW.
        local_epochs: passes over the local images.
        batch_size: images per step.
        seed: with the round, decides order and augmentation.
        proximal_mu: weight of FedProx's proximal term; 0 is none.
    """

    learning_rate: float
    local_epochs: int
    batch_size: int
    seed: int
    proximal_mu: float = 0.0


def _augment(seed: int) -> Compose:
    transform = Compose(
        [
            RandFlip(prob=0.5, spatial_axis=0),
            RandRotate(range_x=0.1, prob=0.5, padding_mode="border"),
            RandZoom(min_zoom=0.95, max_zoom=1.1, prob=0.5, padding_mode="edge"),
            RandGaussianNoise(prob=0.3, std=0.05),
        ]
    )
    transform.set_random_state(seed=seed)
    return transform


def train(model: nn.Module, data: TensorDataset, recipe: Recipe, place: torch.device) -> float:
    """Train in place and return the mean loss of the last epoch, the proximal term not counted.

    Class imbalance is met by weighting the rarer class (`pos_weight`), within a factor of 4 so that a hospital with few
    positives does not drown the others.
    """
    images, labels = data.tensors
    positives = float(labels.sum())
    weight = (len(labels) - positives) / max(positives, 1.0)
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([min(max(weight, 0.25), 4.0)], device=place))
    generator = torch.Generator().manual_seed(recipe.seed)
    augment = _augment(recipe.seed)
    model.to(place).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    proximal = ProximalTerm(model.parameters(), recipe.proximal_mu)
    loss_sum = 0.0
    for _ in range(recipe.local_epochs):
        loss_sum = 0.0
        # A last batch of one image would leave BatchNorm nothing to normalise by.
        order = torch.split(torch.randperm(len(labels), generator=generator), recipe.batch_size)
        batches = [batch for batch in order if len(batch) > 1]
        seen = sum(len(batch) for batch in batches)
        for batch in batches:
            inputs = torch.stack([torch.as_tensor(augment(images[i])) for i in batch])
            inputs = inputs.to(place, memory_format=torch.channels_last)
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(place.type, enabled=place.type == "cuda"):
                loss = criterion(model(inputs), labels[batch].to(place))
            loss.backward()
            proximal.add_gradient()
            optimiser.step()
            loss_sum += loss.item() * len(batch) / seen
    return loss_sum


@torch.inference_mode()
def score(
    model: nn.Module, data: TensorDataset, place: torch.device
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return probabilities (N,), labels (N,) and the mean loss."""
    labels = data.tensors[1]
    logits = _logits(model, data, place)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels).item()
    return torch.sigmoid(logits).squeeze(1), labels.squeeze(1), loss


@torch.inference_mode()
def case_losses(model: nn.Module, data: TensorDataset, place: torch.device) -> torch.Tensor:
    """Return each case's own loss (N,): without augmentation, and whatever the other cases are."""
    losses = nn.functional.binary_cross_entropy_with_logits(
        _logits(model, data, place), data.tensors[1], reduction="none"
    )
    return losses.squeeze(1)


def _logits(model: nn.Module, data: TensorDataset, place: torch.device) -> torch.Tensor:
    model.to(place).eval()
    images = data.tensors[0]
    return torch.cat([model(batch.to(place)).float().cpu() for batch in torch.split(images, 32)])


def auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Return the area under the ROC curve, or None where one class is absent."""
    if labels.min() == labels.max():
        return None
    metric = ROCAUCMetric()
    metric(probabilities.unsqueeze(1), labels.unsqueeze(1))
    value = metric.aggregate()
    return float(value) if isinstance(value, int | float) else None
