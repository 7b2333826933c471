"""The Flower ClientApp: trains on the station's training patients, scores on others.

One process answers all rounds, so images and model stay in memory between them.
Hyperparameters come in the message's config, under the names of train.yaml. What is
answered has the names of train.yaml too; the station counts patients itself.
"""

from functools import lru_cache

import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from .cohort import load_split
from .model import build_model
from .training import Recipe, auc, score, train

app = ClientApp()


@app.train()
def train_round(message: Message, _context: Context) -> Message:
    """Train from the weights of this round; answer the new ones and the loss."""
    config = message.content.config_records["config"]
    recipe = Recipe(
        learning_rate=_number(config, "learning_rate"),
        local_epochs=int(_number(config, "local_epochs")),
        batch_size=int(_number(config, "batch_size")),
        # Another order each round, the same on every machine and after a restart.
        seed=int(_number(config, "seed") * 1000 + _number(config, "server-round")),
    )
    model = _model_with(message)
    loss = train(model, load_split("training"), recipe)
    arrays = ArrayRecord(model.state_dict())
    metrics = MetricRecord({"loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_round(message: Message, _context: Context) -> Message:
    """Score the weights of this round on patients that they were not trained on."""
    model = _model_with(message)
    probabilities, labels, loss = score(model, load_split("validation"))
    metrics = MetricRecord({"loss": loss})
    area = auc(probabilities, labels)
    if area is not None:
        metrics["auc"] = area
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@lru_cache(maxsize=1)
def _model() -> torch.nn.Module:
    return build_model().to("cuda" if torch.cuda.is_available() else "cpu")


def _model_with(message: Message) -> torch.nn.Module:
    """Return the network with the weights that came; every one must be there and fit."""
    model = _model()
    arrays = message.content.array_records["arrays"]
    model.load_state_dict(arrays.to_torch_state_dict())
    return model


def _number(config: ConfigRecord, name: str) -> float:
    value = config[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is not a number")
    return value
