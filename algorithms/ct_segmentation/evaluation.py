"""Scores weights on cases: the loss of each, and how well each structure is found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from algorithms.ct_segmentation.agreement import Agreement, agreement
from algorithms.ct_segmentation.cohort import Case
from algorithms.ct_segmentation.inference import classes_on, logits_of
from algorithms.ct_segmentation.sampling import Sampling, require_known
from algorithms.ct_segmentation.training import criterion
from algorithms.volumes.errors import GridError
from algorithms.volumes.mapped import open_volume
from algorithms.volumes.transforms import LABEL, read_volume


@dataclass(frozen=True, slots=True)
class Scored:
    """One case.

    Attributes:
        patient: whose.
        loss: of the whole volume on the working grid.
        agreements: of each structure on the image's own voxels; empty where they were not asked for.
    """

    patient: str
    loss: float
    agreements: Mapping[str, Agreement]


@torch.inference_mode()
def score_cases(
    network: nn.Module,
    cases: Sequence[Case],
    sampling: Sampling,
    place: torch.device,
    structures: Sequence[str] = (),
) -> Iterator[Scored]:
    """Yield each case's scores, in order; whatever stands beside it.

    Args:
        network: holds the weights.
        cases: to score.
        sampling: the working grid and the window.
        place: where to compute.
        structures: compare these, 1 of the label map the first; without them only the loss is computed.

    Raises:
        VolumeError: a file is none that can be mapped, or a label map not on its image's grid.
        TrainError: MASK_VALUES, a label map has a value that stands for no structure.
    """
    network.to(place).eval()
    loss_of = criterion()
    for case in cases:
        image, label = open_volume(case.image), open_volume(case.label)
        if not label.grid.lies_on(image.grid):
            raise GridError(f"{label.path.name} does not lie on its image's grid: draw it on that very image")
        logits = logits_of(network, case.image, sampling, place)
        target = read_volume(case.label, sampling.spacing_mm, LABEL).as_tensor()
        require_known(target, sampling.classes)
        loss = float(loss_of(logits[None], target[None].to(place)))
        agreements = {}
        if structures:
            found, marked = classes_on(image.grid, logits, sampling.spacing_mm), np.asarray(label.voxels())
            agreements = {
                name: agreement(found == value, marked == value, image.grid)
                for value, name in enumerate(structures, start=1)
            }
        yield Scored(case.patient, loss, agreements)
