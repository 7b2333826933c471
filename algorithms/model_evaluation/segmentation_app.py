"""The ClientApp for segmentations: marks inbound weights' structures in `testing` CTs; returns Dice, and a row of each patient.

Network, grid and window are those of `algorithms.ct_segmentation`, whose weights are brought. Of several CTs of a patient the mean
counts. A structure that is not marked has neither Dice nor distance, and is missing in the row.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from algorithms.clientapp.cohort import data_folder
from algorithms.clientapp.messages import arrays_of, settings_of
from algorithms.clientapp.weights import device, load_weights
from algorithms.ct_segmentation.agreement import summary
from algorithms.ct_segmentation.cohort import segmented_cases, structures_of
from algorithms.ct_segmentation.evaluation import Scored, score_cases
from algorithms.ct_segmentation.networks import MULTIPLE, network_for
from algorithms.ct_segmentation.sampling import Sampling

SPLIT: Final = "testing"
FARTHEST_MM: Final = 1000.0
"""The longest distance that a row holds; a chest is no longer."""

app = ClientApp()


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:  # noqa: ARG001 - Flower's signature
    """Score the inbound weights on testing patients."""
    folder, arrays = data_folder(), arrays_of(message)
    structures = structures_of(folder)
    network = network_for({name: tuple(array.shape) for name, array in arrays.items()}, len(structures) + 1)
    load_weights(network, arrays)
    sampling = _sampling(settings_of(message), len(structures) + 1)
    found = list(score_cases(network, segmented_cases(folder, SPLIT), sampling, device(), structures))
    metrics = {"loss": math.fsum(each.loss for each in found) / len(found)}
    metrics |= summary([(each.patient, each.agreements) for each in found], structures)
    content = RecordDict(
        {"metrics": MetricRecord(dict(metrics)), "rows": MetricRecord(dict(rows(found, structures)))}
    )
    return Message(content=content, reply_to=message)


def rows(found: Sequence[Scored], structures: Sequence[str]) -> dict[str, list[float]]:
    """Return columns of one value per patient, patients in the order of their first case; what is missing is not a number.

    Args:
        found: of each case.
        structures: which ones: `dice_<structure>`, and `hd95_mm_<structure>`, the 95 % Hausdorff distance.
    """
    columns: dict[str, dict[str, list[float]]] = {}
    for structure in structures:
        dice, distance = (columns.setdefault(f"{name}_{structure}", {}) for name in ("dice", "hd95_mm"))
        for case in found:
            one = case.agreements[structure]
            for values, value in ((dice, one.dice), (distance, one.hd95_mm)):
                known = values.setdefault(case.patient, [])
                if value is not None:
                    known.append(min(float(value), FARTHEST_MM))
    return {
        name: [float(np.mean(values)) if values else math.nan for values in patients.values()]
        for name, patients in columns.items()
    }


def _sampling(settings: dict[str, float], classes: int) -> Sampling:
    across, along = settings["spacing_xy_mm"], settings["spacing_z_mm"]
    sides = [math.ceil(settings[name] / MULTIPLE) * MULTIPLE for name in ("patch_xy", "patch_z")]
    return Sampling(
        spacing_mm=(across, across, along),
        patch=(sides[0], sides[0], sides[1]),
        window_hu=(settings["window_low_hu"], settings["window_high_hu"]),
        classes=classes,
        # Nothing is drawn: whole volumes are scored.
        patches_per_case=1,
        share_about_structures=0.0,
        augment=False,
        seed=0,
    )
