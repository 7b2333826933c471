"""One patient's data, and the row that a map program answers with.

The runtime starts the program in a folder with ``request/head.json`` and ``reply/``; the patient lies under ``/train/data``
(PHT_DATA outside a container). What can be expected to go wrong with a patient is a `NoRowError` with a code that the manifest
declares: the station counts it. Anything else ends the program, which the station counts as a crash.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from algorithms.clientapp.cohort import data_folder
from algorithms.one_patient.nifti import NotAVolumeError, Volume, read_volume

Row = Mapping[str, float | int | str | None]

UNREADABLE: Final = "UNREADABLE"
"""A file that is no volume as stations write them, or a label map that lies elsewhere than its image."""
_APART_MM: Final = 1e-3


class NoRowError(Exception):
    """This patient has no row.

    Attributes:
        code: one of the manifest's `error_codes`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Scan:
    """One CT of the patient.

    Attributes:
        image: Hounsfield units.
        labels: the label map on the image's grid, where the train asks for masks.
    """

    image: Volume
    labels: Volume | None


@dataclass(frozen=True, slots=True)
class Patient:
    """What a map program is given.

    Attributes:
        folder: with the patient's images.
        config: the run's hyperparameters.
    """

    folder: Path
    config: Mapping[str, Any]

    def scans(self) -> Iterator[Scan]:
        """Yield the patient's scans, in the datalist's order; nothing is read of one before it is asked for.

        Raises:
            NoRowError: a file is no volume, or a label map does not lie on its image's grid.
        """
        datalist = json.loads((self.folder / "datalist.json").read_text(encoding="utf-8"))
        for entry in [*datalist["training"], *datalist["validation"]]:
            try:
                image = read_volume(self.folder / entry["image"])
                # The entry's label is a file where masks were asked for, else the value of a clinical field.
                mask = entry.get("label")
                labels = read_volume(self.folder / mask) if isinstance(mask, str) else None
            except NotAVolumeError as error:
                raise NoRowError(UNREADABLE) from error
            if labels is not None and not _on_one_grid(labels, image):
                raise NoRowError(UNREADABLE)
            yield Scan(image, labels)


def _on_one_grid(labels: Volume, image: Volume) -> bool:
    same_place = np.allclose(labels.affine, image.affine, rtol=0.0, atol=_APART_MM)
    return labels.voxels.shape == image.voxels.shape and same_place


def write_row(row_of: Callable[[Patient], Row]) -> None:
    """Write the row of the patient that this process was started for, or the error that stands in its place."""
    request = json.loads(Path("request/head.json").read_text(encoding="utf-8"))
    try:
        row = row_of(Patient(data_folder(), request["config"]))
    except NoRowError as error:
        row = {"error": error.code}
    Path("reply/row.json").write_text(json.dumps(row, allow_nan=False), encoding="utf-8")
