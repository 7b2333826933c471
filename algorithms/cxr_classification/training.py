"""Local training and scoring: plain torch, seeded, the same steps on CPU and GPU."""

from dataclasses import dataclass
from typing import Final

import torch
from monai.metrics import ROCAUCMetric
from monai.utils import convert_to_tensor
from torch import nn
from torch.utils.data import TensorDataset

from algorithms.clientapp.failures import TrainError
from algorithms.clientapp.optimising import finite_loss, optimiser_for
from algorithms.clientapp.precision import MixedPrecision
from algorithms.clientapp.proximal import ProximalTerm
from algorithms.cxr_classification.augmentation import augmentation
from algorithms.cxr_classification.loss import finding_loss, positive_weights

WEIGHT_DECAY: Final = 1e-4
"""Of AdamW."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train for one round.

    Attributes:
        learning_rate: of the optimiser.
        local_epochs: passes over the local images.
        batch_size: images per step; as many as there are or more is one full batch.
        seed: with the round, decides order and augmentation.
        proximal_mu: weight of FedProx's proximal term; 0 is none.
        positive_weight: of positives in the loss, the same everywhere; 0 takes the hospital's own prevalence.
        augment: whether images are changed at random.
        plain_sgd: gradient descent without momentum or decay, in place of AdamW.
        frozen_statistics: normalise by the inbound BatchNorm statistics and leave them as they are. Then, and with plain_sgd, no
            augmentation, a full batch and a given positive_weight, one federated step is the pooled one.
    """

    learning_rate: float
    local_epochs: int
    batch_size: int
    seed: int
    proximal_mu: float = 0.0
    positive_weight: float = 0.0
    augment: bool = True
    plain_sgd: bool = False
    frozen_statistics: bool = False


def train(model: nn.Module, data: TensorDataset, recipe: Recipe, place: torch.device) -> float:
    """Train in place and return the mean loss of the last epoch, the proximal term not counted.

    Images and labels are on the device before the first step, and losses stay there until the last.

    Args:
        model: with the inbound weights.
        data: images (N, 1, H, W) and labels (N, findings), as `load_split` gives them.
        recipe: how.
        place: where.

    Raises:
        TrainError: TOO_FEW_IMAGES, there is nothing to take a step on; LOSS_NOT_FINITE, training diverged.
    """
    images, labels = (each.to(place) for each in data.tensors)
    weights = positive_weights(labels, recipe.positive_weight)
    generator = torch.Generator().manual_seed(recipe.seed)
    change = augmentation(recipe.seed, images.shape[-1]) if recipe.augment else None
    model.to(place).train(not recipe.frozen_statistics)
    optimiser = optimiser_for(model, recipe.learning_rate, WEIGHT_DECAY, plain_sgd=recipe.plain_sgd)
    proximal = ProximalTerm(model.parameters(), recipe.proximal_mu)
    precision = MixedPrecision(place)
    mean = torch.zeros((), device=place)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for _ in range(recipe.local_epochs):
            batches = _batches(len(labels), recipe, generator)
            seen = sum(len(batch) for batch in batches)
            mean = torch.zeros((), device=place)
            for batch in batches:
                chosen = [images[at] if change is None else change(images[at]) for at in batch]
                inputs = torch.stack([convert_to_tensor(each, track_meta=False) for each in chosen])
                optimiser.zero_grad(set_to_none=True)
                with precision.autocast():
                    logits = model(inputs.contiguous(memory_format=torch.channels_last))
                loss = finding_loss(logits, torch.stack([labels[at] for at in batch]), weights)
                precision.backward(loss, optimiser)
                proximal.add_gradient()
                precision.step(optimiser)
                mean += loss.detach() * (len(batch) / seen)
    return finite_loss(mean)


def _batches(images: int, recipe: Recipe, generator: torch.Generator) -> list[list[int]]:
    order = torch.split(torch.randperm(images, generator=generator), recipe.batch_size)
    # A last batch of one image would leave BatchNorm nothing to normalise by.
    least = 1 if recipe.frozen_statistics else 2
    found: list[list[int]] = [batch.tolist() for batch in order if len(batch) >= least]
    if not found:
        raise TrainError("TOO_FEW_IMAGES", "a training split of one image has nothing to normalise by")
    return found


@torch.inference_mode()
def score(
    model: nn.Module, data: TensorDataset, place: torch.device
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the first finding's probabilities (N,) and labels (N,), and the mean loss over all findings."""
    labels = data.tensors[1]
    found = logits_of(model, data, place)
    loss = finding_loss(found, labels, torch.ones_like(labels[0])).item()
    return torch.sigmoid(found)[:, 0], labels[:, 0], loss


@torch.inference_mode()
def case_losses(model: nn.Module, data: TensorDataset, place: torch.device) -> torch.Tensor:
    """Return each case's own loss (N,): without augmentation, and whatever the other cases are."""
    labels, found = data.tensors[1], logits_of(model, data, place)
    weights = torch.ones_like(labels[0])
    pairs = zip(torch.split(found, 1), torch.split(labels, 1), strict=True)
    return torch.stack([finding_loss(logits, label, weights) for logits, label in pairs])


@torch.inference_mode()
def logits_of(model: nn.Module, data: TensorDataset, place: torch.device) -> torch.Tensor:
    """Return the logits (N, findings) in evaluation mode, on the CPU."""
    model.to(place).eval()
    batches = (batch.to(place) for batch in torch.split(data.tensors[0], 32))
    return torch.cat(
        [model(batch.contiguous(memory_format=torch.channels_last)).float().cpu() for batch in batches]
    )


def auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Return the area under the ROC curve, or None where one class is absent; cases without a label do not count."""
    known = ~torch.isnan(labels)
    probabilities, labels = probabilities[known], labels[known]
    if len(labels) == 0 or labels.min() == labels.max():
        return None
    metric = ROCAUCMetric()
    metric(probabilities.unsqueeze(1), labels.unsqueeze(1))
    # A number, but of numpy's own type where scores are even: not every float is one of Python's.
    return float(metric.aggregate())  # type: ignore[arg-type]  # a list is of several classes
