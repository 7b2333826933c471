"""The train's Flower ClientApp: train on `training`, evaluate on `validation`, say how well weights fit each case.

The process stays warm over all rounds, and so do the images and the model. Counts are left to the station, which has its own.
"""

from collections.abc import Mapping

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import TensorDataset

from algorithms.clientapp.cohort import data_folder
from algorithms.clientapp.failures import TrainError
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.clientapp.weights import device, load_weights, read_weights
from algorithms.cxr_classification.calibration import brier, losses_at
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.findings import named_findings
from algorithms.cxr_classification.model import build_model
from algorithms.cxr_classification.training import Recipe, auc, case_losses, logits_of, train

app = ClientApp()

_warm: dict[int, nn.Module] = {}


@app.train()
def train_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Train from the inbound weights; reply with the new ones and the loss."""
    settings = settings_of(message)
    recipe = recipe_of(settings)
    torch.manual_seed(recipe.seed)
    model, data = _model(message), _images(settings, "training")
    loss = train(model, data, recipe, device())
    content = RecordDict({"arrays": read_weights(model), "metrics": MetricRecord({"loss": loss})})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on validation patients."""
    settings = settings_of(message)
    model, data = _model(message), _images(settings, "validation")
    first = int(settings.get("calibrate_from_round", 0))
    calibrate = 0 < first <= int(settings["server-round"])
    metrics = figures(logits_of(model, data, device()), data.tensors[1], calibrate=calibrate)
    return Message(content=RecordDict({"metrics": MetricRecord({**metrics})}), reply_to=message)


@app.query("score")
def score_cases(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Answer the loss of each case with the inbound weights, in the order of the datalist."""
    model, data = _model(message), _images(settings_of(message), "validation")
    losses = case_losses(model, data, device())
    content = RecordDict({"scores": MetricRecord({"loss": losses.tolist()})})
    return Message(content=content, reply_to=message)


def recipe_of(settings: Mapping[str, float]) -> Recipe:
    """Return how to train, from the order's hyperparameters and the round's number."""
    return Recipe(
        learning_rate=settings["learning_rate"],
        local_epochs=int(settings["local_epochs"]),
        batch_size=int(settings["batch_size"]),
        # Another order and augmentation each round, the same on every machine and after a restart.
        seed=int(settings["seed"]) * 1000 + int(settings["server-round"]),
        proximal_mu=settings.get("proximal-mu", 0.0),
        positive_weight=settings.get("positive_weight", 0.0),
        augment=bool(settings.get("augment", True)),
        plain_sgd=bool(settings.get("plain_sgd", False)),
        frozen_statistics=bool(settings.get("frozen_statistics", False)),
    )


def figures(logits: torch.Tensor, labels: torch.Tensor, *, calibrate: bool) -> dict[str, float]:
    """Return what an evaluation tells: loss and AUC, and with `calibrate` what a temperature is fitted from.

    With several findings the AUC is the mean over those that have both classes here, and each of those has its own beside it.
    """
    losses = losses_at(logits, labels)
    told = losses | {"brier": brier(logits, labels)} if calibrate else {"loss": losses["loss"]}
    areas = [auc(torch.sigmoid(logits[:, at]), labels[:, at]) for at in range(labels.shape[1])]
    known = [area for area in areas if area is not None]
    if known:
        told["auc"] = sum(known) / len(known)
    named = zip(named_findings(), areas, strict=False) if len(areas) > 1 else ()
    return told | {f"auc_{name}": area for name, area in named if area is not None}


def _images(settings: Mapping[str, float], split: str) -> TensorDataset:
    return load_split(data_folder(), split, int(settings["image_size"]))


def _model(message: Message) -> nn.Module:
    outputs = len(named_findings()) or 1
    if outputs not in _warm:
        _warm[outputs] = build_model(outputs)
    try:
        load_weights(_warm[outputs], arrays_of(message))
    except RuntimeError as error:
        raise TrainError(
            "WEIGHTS_DO_NOT_FIT", f"the inbound weights are not those of this network: {error}"
        ) from error
    return _warm[outputs]
