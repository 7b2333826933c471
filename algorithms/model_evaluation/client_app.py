"""The ClientApp for classifiers: scores inbound weights on `testing` radiographs; returns figures, and a row of each patient.

The figures are the train's own word about its hospital's patients. The rows stay there: the station counts them, by finding, scanner and
group, and what it counts adds up over hospitals.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from algorithms.clientapp.cohort import cases_of, data_folder
from algorithms.clientapp.failures import TrainError
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.clientapp.weights import device
from algorithms.cxr_classification.data import load_split
from algorithms.cxr_classification.training import auc, logits_of
from algorithms.model_evaluation.calibration import brier, expected_error, intercept, slope
from algorithms.model_evaluation.network import loaded
from algorithms.model_evaluation.patients import PatientScores, of_patients

SPLIT: Final = "testing"
FARTHEST: Final = 10.0
"""The largest calibration intercept or slope that is told, to either side: the manifest's range."""

app = ClientApp()


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on testing patients."""
    settings = settings_of(message)
    data = load_split(data_folder(), SPLIT, int(settings["image_size"]))
    logits = logits_of(loaded(arrays_of(message)), data, device())
    found = scored(data_folder(), logits, data.tensors[1][:, 0], settings)
    content = RecordDict(
        {
            "metrics": MetricRecord(dict(figures(found))),
            "rows": MetricRecord(dict(found.rows(settings["threshold"]))),
        }
    )
    return Message(content=content, reply_to=message)


def scored(
    folder: Path, logits: torch.Tensor, labels: torch.Tensor, settings: Mapping[str, float]
) -> PatientScores:
    """Return the scores of patients from the network's logits of images.

    Args:
        folder: the cohort.
        logits: in the order of the datalist. Shape (images, outputs).
        labels: 0 or 1. Shape (images,).
        settings: `output`, which output is the finding; `temperature`, what its logits are divided by.

    Raises:
        TrainError: OUTPUT_ABSENT, the network has no such output; SCORE_NOT_FINITE, it says no number of an image; NO_LABELS, of an
            image nobody knows whether it shows the finding.
    """
    output = int(settings["output"])
    if output >= logits.shape[1]:
        raise TrainError(
            "OUTPUT_ABSENT",
            f"the network has {logits.shape[1]} outputs: order output 0 to {logits.shape[1] - 1}",
        )
    chances = torch.sigmoid(logits[:, output].double() / settings["temperature"])
    if not bool(torch.isfinite(chances).all()):
        raise TrainError(
            "SCORE_NOT_FINITE", "the network says no finite number of an image: its weights are damaged"
        )
    if bool(torch.isnan(labels).any()):
        raise TrainError("NO_LABELS", "an image has no label, and would count as one without the finding")
    patients = [str(case["patient"]) for case in cases_of(folder, SPLIT)]
    return of_patients(patients, chances.tolist(), labels.tolist())


def figures(found: PatientScores) -> dict[str, float]:
    """Return what the train says of all patients together; what has no value is left out."""
    scores, labels = found.scores, found.labels
    told: dict[str, float | None] = {
        "loss": _loss(found),
        "auc": auc(torch.from_numpy(scores), torch.from_numpy(labels)),
        "brier": brier(scores, labels),
        "calibration_error": expected_error(scores, labels),
        "calibration_intercept": intercept(scores, labels),
        "calibration_slope": slope(scores, labels),
    }
    for name in ("calibration_intercept", "calibration_slope"):
        value = told[name]
        # Of a model that knows nothing a slope may be anything; outside the declared range nothing at all would leave.
        if value is not None and abs(value) > FARTHEST:
            told[name] = None
    return {name: value for name, value in told.items() if value is not None}


def _loss(found: PatientScores) -> float:
    inside = np.clip(found.scores, 1e-12, 1 - 1e-12)
    return float(-np.mean(found.labels * np.log(inside) + (1 - found.labels) * np.log(1 - inside)))
