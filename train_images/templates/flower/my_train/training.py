"""Local training and scoring: plain torch, seeded, on CPU or GPU."""

from dataclasses import dataclass

import torch
from monai.data import CacheDataset
from monai.metrics import compute_roc_auc


@dataclass(frozen=True)
class Recipe:
    """How to train for one round."""

    learning_rate: float
    local_epochs: int
    batch_size: int
    seed: int


def train(model: torch.nn.Module, data: CacheDataset, recipe: Recipe) -> float:
    """Train in place; return the mean loss of the last epoch."""
    torch.manual_seed(recipe.seed)
    device = next(model.parameters()).device
    images, labels = _tensors(data)
    criterion = torch.nn.BCEWithLogitsLoss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    model.train()
    losses: list[float] = []
    for _ in range(recipe.local_epochs):
        losses = []
        order = torch.randperm(len(labels))
        for start in range(0, len(order), recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            if len(batch) < 2:
                # Batch normalisation has nothing to normalise one image by.
                continue
            optimiser.zero_grad()
            logits = model(images[batch].to(device)).squeeze(1)
            loss = criterion(logits, labels[batch].to(device))
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def score(
    model: torch.nn.Module, data: CacheDataset
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return probabilities and labels, both (N,), and the mean loss."""
    device = next(model.parameters()).device
    images, labels = _tensors(data)
    model.eval()
    logits = torch.cat([model(image[None].to(device)).cpu() for image in images])
    logits = logits.squeeze(1)
    criterion = torch.nn.BCEWithLogitsLoss()
    return torch.sigmoid(logits), labels, criterion(logits, labels).item()


def auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float | None:
    """Return the area under the ROC curve; None where all are of one class."""
    if labels.min() == labels.max():
        return None
    area = compute_roc_auc(probabilities[:, None], labels[:, None])
    return area if isinstance(area, float) else None


def _tensors(data: CacheDataset) -> tuple[torch.Tensor, torch.Tensor]:
    items = [data[number] for number in range(len(data))]
    images = torch.stack([torch.as_tensor(item["image"]) for item in items])
    return images, torch.tensor([float(item["label"]) for item in items])
