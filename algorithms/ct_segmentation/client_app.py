"""The train's Flower ClientApp: trains on `training`, evaluates on `validation`, and marks a case for the hospital itself.

The process stays warm over all rounds, and so do the network, the volumes that fit into memory, and what is known of each file.
Counts are left to the station, which has its own.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import Dataset

from algorithms.clientapp.cohort import data_folder
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.clientapp.weights import device, load_weights, read_weights
from algorithms.ct_segmentation.agreement import summary
from algorithms.ct_segmentation.cohort import image_of, segmented_cases, structures_of
from algorithms.ct_segmentation.evaluation import score_cases
from algorithms.ct_segmentation.inference import label_map, logits_of
from algorithms.ct_segmentation.networks import MULTIPLE, network_for
from algorithms.ct_segmentation.sampling import Sampling
from algorithms.ct_segmentation.sides import mirrored_values
from algorithms.ct_segmentation.training import Recipe, train
from algorithms.volumes.caching import cached, memory_limit_bytes
from algorithms.volumes.transforms import Reading

PREDICTION: Final = "structures"
"""The label map that `predict` answers, by its name in the manifest."""

app = ClientApp()


@app.train()
def train_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Train from the inbound weights; reply with the new ones and the loss."""
    settings = settings_of(message)
    sampling, network = _sampling(settings), _network(message)
    recipe = Recipe(
        learning_rate=settings["learning_rate"],
        local_epochs=int(settings["local_epochs"]),
        batch_size=int(settings["batch_size"]),
        plain_sgd=bool(settings["plain_sgd"]),
        proximal_mu=settings.get("proximal-mu", 0.0),
        round=int(settings["server-round"]),
    )
    cases = _training_cases(data_folder(), sampling.spacing_mm, settings["cache_share"])
    loss = train(network, cases, recipe, sampling, device())
    content = RecordDict({"arrays": read_weights(network), "metrics": MetricRecord({"loss": loss})})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate_round(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on validation patients."""
    structures = structures_of(data_folder())
    scored = list(
        score_cases(
            _network(message),
            segmented_cases(data_folder(), "validation"),
            _sampling(settings_of(message)),
            device(),
            structures,
        )
    )
    metrics = {"loss": math.fsum(each.loss for each in scored) / len(scored)}
    metrics |= summary([(each.patient, each.agreements) for each in scored], structures)
    return Message(content=RecordDict({"metrics": MetricRecord(dict(metrics))}), reply_to=message)


@app.query("score")
def score(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Answer the loss of each case with the inbound weights, in the order of the datalist."""
    cases = segmented_cases(data_folder(), "validation")
    scored = score_cases(_network(message), cases, _sampling(settings_of(message)), device())
    content = RecordDict({"scores": MetricRecord({"loss": [each.loss for each in scored]})})
    return Message(content=content, reply_to=message)


@app.query("predict")
def predict(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Answer one case's label map, on the voxels of its own image; it stays at the hospital."""
    image = image_of(data_folder(), str(message.content["predict"]["case"]))
    sampling = _sampling(settings_of(message))
    place = device()
    network = _network(message).to(place).eval()
    found = label_map(logits_of(network, image, sampling, place), image, sampling)
    return Message(content=RecordDict({"arrays": ArrayRecord({PREDICTION: Array(found)})}), reply_to=message)


def _network(message: Message) -> nn.Module:
    arrays = arrays_of(message)
    shapes = tuple((name, tuple(array.shape)) for name, array in arrays.items())
    network = _built(shapes, len(structures_of(data_folder())) + 1)
    load_weights(network, arrays)
    return network


@lru_cache(maxsize=1)
def _built(shapes: tuple[tuple[str, tuple[int, ...]], ...], classes: int) -> nn.Module:
    return network_for(dict(shapes), classes)


@lru_cache(maxsize=1)
def _training_cases(folder: Path, spacing_mm: tuple[float, float, float], cache_share: float) -> Dataset[Any]:
    items = [case.item for case in segmented_cases(folder, "training")]
    return cached(items, Reading(spacing_mm=spacing_mm), int(cache_share * memory_limit_bytes()))


def _sampling(settings: dict[str, float]) -> Sampling:
    structures = structures_of(data_folder())
    across, along = settings["spacing_xy_mm"], settings["spacing_z_mm"]
    sides = [math.ceil(settings[name] / MULTIPLE) * MULTIPLE for name in ("patch_xy", "patch_z")]
    return Sampling(
        spacing_mm=(across, across, along),
        patch=(sides[0], sides[0], sides[1]),
        patches_per_case=int(settings["patches_per_case"]),
        share_about_structures=settings["share_about_structures"],
        window_hu=(settings["window_low_hu"], settings["window_high_hu"]),
        augment=bool(settings["augment"]),
        seed=int(settings["seed"]),
        classes=len(structures) + 1,
        mirrored=mirrored_values(structures),
    )
