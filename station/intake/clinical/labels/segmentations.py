"""DICOM Segmentations that came in like any instance: which series they lie on, what their segments are.

Read from the pseudonymised file. A segment is called by the meaning of its property type's code, for labels and descriptions are
text that the pseudonymisation removes; where it removed the meaning too (a private code), by the code itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from station.intake.clinical.labels.faults import LabelError, LabelFault

SEGMENTATION_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
    }
)
_REMOVED = "REMOVED"
_MAX_SEGMENTS = 255
_MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a segmentation says of itself.

    Attributes:
        series_uid: of the images it was drawn on, as pseudonymised.
        names: of segments 1, 2, ...
    """

    series_uid: str
    names: tuple[str, ...]


def read_segmentation(path: Path) -> Segmentation:
    """Read a pseudonymised segmentation.

    Raises:
        LabelError: it names no series, or several, or its segments are not numbered 1, 2, ...
    """
    try:
        found = dcmread(path, stop_before_pixels=True)
        series = {str(item.SeriesInstanceUID) for item in found.ReferencedSeriesSequence}
        # A label map may number the background too; it is no segment to anybody.
        segments = [item for item in found.SegmentSequence if int(item.SegmentNumber) > 0]
        numbers = [int(item.SegmentNumber) for item in segments]
        if (
            len(series) == 1
            and numbers == list(range(1, len(numbers) + 1))
            and 0 < len(numbers) <= _MAX_SEGMENTS
        ):
            return Segmentation(series.pop(), _distinct([_name(item) for item in segments]))
    except (AttributeError, TypeError, ValueError, OSError, KeyError):
        # What pydicom says quotes the file.
        pass
    raise LabelError(LabelFault.NOT_A_SEGMENTATION)


def _name(segment: Dataset) -> str:
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    modifiers: Sequence[Any] = kind.get("SegmentedPropertyTypeModifierCodeSequence") or ()
    parts = [_term(code) for code in (*modifiers, kind)]
    return _slug(" ".join(parts)) or f"segment-{int(segment.SegmentNumber)}"


def _term(code: Dataset) -> str:
    meaning = str(code.get("CodeMeaning") or "")
    if meaning and meaning != _REMOVED:
        return meaning
    value = code.get("CodeValue") or code.get("LongCodeValue") or ""
    return f"{code.get('CodingSchemeDesignator') or ''} {value}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_MAX_NAME].strip("-")


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Number the names that stand twice: the second is called the same with ``-2``."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name[: _MAX_NAME - 5].strip('-')}-{seen[name]}")
    return tuple(found)
