"""The train's Flower ClientApp: train on `training`, evaluate on `validation`, say how well weights fit each case.

The process stays warm over all rounds, and so do the images and the model. Counts are left to the station, which has its own.
"""

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from algorithms.clientapp.cohort import data_folder
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.clientapp.weights import device, load_weights, read_weights
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.model import build_model
from algorithms.cxr_classification.training import Recipe, auc, case_losses, score, train

app = ClientApp()

_warm: dict[str, nn.Module] = {}


def _model() -> nn.Module:
    if "model" not in _warm:
        _warm["model"] = build_model()
    return _warm["model"]


@app.train()
def train_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Train from the inbound weights; reply with the new ones and the loss."""
    settings = settings_of(message)
    # Another order and augmentation each round, the same on every machine and after a restart.
    recipe = Recipe(
        learning_rate=settings["learning_rate"],
        local_epochs=int(settings["local_epochs"]),
        batch_size=int(settings["batch_size"]),
        seed=int(settings["seed"]) * 1000 + int(settings["server-round"]),
        proximal_mu=settings.get("proximal-mu", 0.0),
    )
    torch.manual_seed(recipe.seed)
    data = load_split(data_folder(), "training", int(settings["image_size"]))
    model = _model()
    load_weights(model, arrays_of(message))
    loss = train(model, data, recipe, device())
    content = RecordDict({"arrays": read_weights(model), "metrics": MetricRecord({"loss": loss})})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on validation patients."""
    settings = settings_of(message)
    data = load_split(data_folder(), "validation", int(settings["image_size"]))
    model = _model()
    load_weights(model, arrays_of(message))
    probabilities, labels, loss = score(model, data, device())
    metrics = MetricRecord({"loss": loss})
    if (area := auc(probabilities, labels)) is not None:
        metrics["auc"] = area
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


@app.query("score")
def score_cases(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Answer the loss of each case with the inbound weights, in the order of the datalist."""
    settings = settings_of(message)
    data = load_split(data_folder(), "validation", int(settings["image_size"]))
    model = _model()
    load_weights(model, arrays_of(message))
    losses = case_losses(model, data, device())
    content = RecordDict({"scores": MetricRecord({"loss": losses.tolist()})})
    return Message(content=content, reply_to=message)
