"""A train small enough for tests: logistic regression on 8x8 thumbnails, numpy only, an ordinary Flower ClientApp."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

DATA = Path(os.environ.get("PHT_DATA", "/train/data"))
HEADER_BYTES = 352
SIDE = 8

app = ClientApp()
_loaded: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def initial_weights() -> dict[str, np.ndarray]:
    """What round 1 starts from."""
    return {"weight": np.zeros(SIDE * SIDE, np.float32), "bias": np.zeros(1, np.float32)}


def thumbnail(path: Path) -> np.ndarray:
    raw = path.read_bytes()
    width, height = np.frombuffer(raw, "<i2", 2, 42)
    kind = int(np.frombuffer(raw, "<i2", 1, 70)[0])
    dtype = {512: "<u2", 16: "<f4", 4: "<i2"}[kind]
    pixels = (
        np.frombuffer(raw, dtype, int(width) * int(height), HEADER_BYTES)
        .reshape(height, width)
        .astype(np.float32)
    )
    rows, columns = height // SIDE, width // SIDE
    small = pixels[: rows * SIDE, : columns * SIDE].reshape(SIDE, rows, SIDE, columns).mean((1, 3))
    return ((small - small.mean()) / (small.std() + 1e-6)).ravel()


def cases(split: str) -> tuple[np.ndarray, np.ndarray]:
    if split not in _loaded:
        listed = json.loads((DATA / "datalist.json").read_text())[split]
        images = np.stack([thumbnail(DATA / case["image"]) for case in listed])
        _loaded[split] = images, np.array([case["label"] for case in listed], np.float32)
    return _loaded[split]


def weights_of(message: Message) -> tuple[np.ndarray, np.ndarray]:
    arrays = message.content["arrays"]
    return arrays["weight"].numpy().astype(np.float64), arrays["bias"].numpy().astype(np.float64)


def probabilities(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(images @ weight + bias[0], -30, 30)))


def loss_of(predicted: np.ndarray, labels: np.ndarray) -> float:
    predicted = np.clip(predicted, 1e-6, 1 - 1e-6)
    return float(-np.mean(labels * np.log(predicted) + (1 - labels) * np.log(1 - predicted)))


@app.train()
def train(message: Message, context: Context) -> Message:
    images, labels = cases("training")
    weight, bias = weights_of(message)
    rate = float(message.content["config"]["learning_rate"])
    until = time.monotonic() + float(message.content["config"]["least_seconds"])
    for _ in range(int(message.content["config"]["local_epochs"])):
        error = probabilities(images, weight, bias) - labels
        weight -= rate * images.T @ error / len(labels)
        bias -= rate * error.mean()
    while time.monotonic() < until:  # busy on any machine for as long as a test needs to see it so
        probabilities(images, weight, bias)
    print(f"trained on {len(labels)} images")
    content = RecordDict(
        {
            "arrays": ArrayRecord(
                {"weight": Array(weight.astype(np.float32)), "bias": Array(bias.astype(np.float32))}
            ),
            "metrics": MetricRecord({"loss": loss_of(probabilities(images, weight, bias), labels)}),
        }
    )
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    images, labels = cases("validation")
    predicted = probabilities(images, *weights_of(message))
    return Message(
        content=RecordDict({"metrics": MetricRecord({"loss": loss_of(predicted, labels)})}), reply_to=message
    )
