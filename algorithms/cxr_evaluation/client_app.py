"""The evaluation train's ClientApp: scores inbound weights on `testing` patients; returns AUC, loss, and a row of each patient.

Rows are for the station to count: a score and a label per patient, in the order in which the cohort lists patients. Of a patient
with several images the highest score counts, and the label is positive when one of the images is: who reads a patient's radiographs
calls the finding when one of them shows it.
"""

from pathlib import Path

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from algorithms.clientapp.cohort import cases_of, data_folder
from algorithms.clientapp.failures import TrainError
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.clientapp.weights import device, load_weights
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.model import build_model
from algorithms.cxr_classification.training import auc, score

SPLIT = "testing"

app = ClientApp()


def patients_of(folder: Path, split: str) -> list[str]:
    """Return whose image each case of a split is, in the order in which `load_split` reads them."""
    return [str(case["patient"]) for case in cases_of(folder, split)]


def rows(
    patients: list[str], probabilities: torch.Tensor, labels: torch.Tensor
) -> dict[str, list[float] | list[int]]:
    """Return one score and one label per patient, patients in the order of their first image.

    Args:
        patients: of each image.
        probabilities: of each image, 0 to 1. Shape (N,).
        labels: of each image, 0 or 1. Shape (N,).

    Raises:
        TrainError: NO_LABELS, of an image nobody knows whether it shows the finding; SCORE_NOT_FINITE, the network says no number of one.
    """
    if bool(torch.isnan(labels).any()):
        raise TrainError("NO_LABELS", "an image has no label, and would count as one without the finding")
    if not bool(torch.isfinite(probabilities).all()):
        raise TrainError(
            "SCORE_NOT_FINITE", "the network says no finite number of an image: its weights are damaged"
        )
    found: dict[str, tuple[float, int]] = {}
    for patient, probability, label in zip(patients, probabilities.tolist(), labels.tolist(), strict=True):
        highest, positive = found.get(patient, (0.0, 0))
        found[patient] = (max(highest, probability), max(positive, int(label)))
    return {"score": [each for each, _ in found.values()], "label": [each for _, each in found.values()]}


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on testing patients."""
    settings = settings_of(message)
    data = load_split(data_folder(), SPLIT, int(settings["image_size"]))
    probabilities, labels, loss = score(_loaded(message), data, device())
    stated = rows(patients_of(data_folder(), SPLIT), probabilities, labels)
    metrics = MetricRecord({"loss": loss})
    if (area := auc(probabilities, labels)) is not None:
        metrics["auc"] = area
    content = RecordDict({"metrics": metrics, "rows": MetricRecord(dict(stated))})
    return Message(content=content, reply_to=message)


def _loaded(message: Message) -> nn.Module:
    model = build_model()
    try:
        load_weights(model, arrays_of(message))
    except RuntimeError as error:
        raise TrainError(
            "WEIGHTS_DO_NOT_FIT", f"the weights that the order names are not those of this network: {error}"
        ) from error
    return model
