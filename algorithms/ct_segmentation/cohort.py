"""A station's cohort as this train sees it: cases with an image and a label map, and what the maps' values mean."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithms.clientapp.cohort import cases_of
from algorithms.clientapp.failures import TrainError


@dataclass(frozen=True, slots=True)
class Case:
    """One volume with its label map.

    Attributes:
        name, patient: pseudonyms of this train.
        image, label: paths.
    """

    name: str
    patient: str
    image: Path
    label: Path

    @property
    def item(self) -> dict[str, Any]:
        """What MONAI's transforms are given."""
        return {"image": str(self.image), "label": str(self.label), "case": self.name}


def structures_of(folder: Path) -> tuple[str, ...]:
    """Return the structures that label maps mark, 1 the first: the manifest's `data.masks`, by the names of metrics.

    Raises:
        TrainError: NO_MASKS, the cohort has none; MASK_NAMES, two of them would have one metric.
    """
    labels = _datalist(folder).get("labels", {})
    names = [labels.get(str(value)) for value in range(1, len(labels))]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TrainError("NO_MASKS", "the cohort has no label maps: train.yaml asks for them as data.masks")
    found = tuple(re.sub(r"[^a-z0-9]", "_", str(name).lower()) for name in names)
    if len(set(found)) < len(found):
        alike = sorted({str(name) for name, key in zip(names, found, strict=True) if found.count(key) > 1})
        raise TrainError(
            "MASK_NAMES",
            f"{', '.join(alike)} differ in punctuation or case alone, and so would have metrics of one name: name other data.masks in train.yaml",
        )
    return found


def segmented_cases(folder: Path, split: str) -> list[Case]:
    """Return a split's cases in the datalist's order.

    Raises:
        TrainError: NO_CASES, the split is empty; NO_MASKS, a case has no label map; CASES_UNREADABLE, a path leaves the cohort.
    """
    found = []
    for position, entry in enumerate(cases_of(folder, split)):
        paths = [entry.get("image"), entry.get("label")]
        if not isinstance(paths[1], str):
            raise TrainError(
                "NO_MASKS", f"case {position} of {split} has no label map: train.yaml asks for data.masks"
            )
        image, label = (_inside(folder, path) for path in paths)
        # A cohort of one's own, made for MONAI, may have neither; cases are then told apart by their place.
        name = str(entry.get("case", f"{split}-{position}"))
        found.append(Case(name, str(entry.get("patient", name)), image, label))
    return found


def image_of(folder: Path, name: str) -> Path:
    """Return the image of a case of whatever split.

    Raises:
        TrainError: NO_CASES, there is no such case.
    """
    for entries in _datalist(folder).values():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("case") == name:
                return _inside(folder, entry.get("image"))
    raise TrainError("NO_CASES", "the case that is asked for is not in datalist.json")


def _inside(folder: Path, path: object) -> Path:
    joined = (folder / str(path)).resolve()
    if not isinstance(path, str) or not joined.is_relative_to(folder.resolve()):
        raise TrainError("CASES_UNREADABLE", "datalist.json names a file outside the cohort's folder")
    return joined


def _datalist(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "datalist.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError("CASES_UNREADABLE", "datalist.json cannot be read") from error
    if not isinstance(found, dict):
        raise TrainError("CASES_UNREADABLE", "datalist.json is no object")
    return found
