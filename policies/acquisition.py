"""How an image was acquired, as a train may be shown it: a closed list of fields, each coarser than what the scanner wrote.

The values come from the catalogue, that is from pseudonymised headers, so they are untrusted: what is not of a field's own form is
not shown. Coarse, because a hospital may have one scanner of its kind: the manufacturer is shown and no model, serial number,
software version or reconstruction kernel; sizes and thicknesses are rounded. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OTHER: Final = "other"
"""What is named, and is none of the list."""


class AcquisitionField(StrEnum):
    """What a train may ask for; the name is that of the table's column."""

    MANUFACTURER = "manufacturer"
    MODALITY = "modality"
    VIEW_POSITION = "view_position"
    SLICE_THICKNESS = "slice_thickness_mm"
    IMAGE_ROWS = "image_rows"
    IMAGE_COLUMNS = "image_columns"


@dataclass(frozen=True, slots=True)
class AcquisitionForm:
    """What a field shows.

    Attributes:
        words: what it is, for people.
        categories: the values that it can show; empty for a number.
        step: to the nearest multiple of which a number is shown, halves up.
        maximum: the largest number that is shown; above it nothing is.
    """

    words: str
    categories: tuple[str, ...] = ()
    step: float = 1.0
    maximum: float = 0.0


_MANUFACTURERS: Final[Mapping[str, tuple[str, ...]]] = {
    "agfa": ("AGFA",),
    "canon": ("CANON",),
    "carestream": ("CARESTREAM", "KODAK", "EASTMAN KODAK"),
    "fujifilm": ("FUJI",),
    "ge": ("GE ", "GE_", "GEMS", "GENERAL ELECTRIC"),
    "hitachi": ("HITACHI",),
    "konica-minolta": ("KONICA",),
    "philips": ("PHILIPS",),
    "samsung": ("SAMSUNG",),
    "shimadzu": ("SHIMADZU",),
    "siemens": ("SIEMENS",),
    "toshiba": ("TOSHIBA",),
    "united-imaging": ("UIH", "UNITED IMAGING", "UNITED-IMAGING"),
}
"""Beginnings of Manufacturer (0008,0070) in capitals; firms write several. One that has been taken over keeps its old name."""

_VIEWS: Final = ("AP", "PA", "LL", "RL", "LLD", "RLD", "LLO", "RLO")
"""View Position (0018,5101), its defined terms."""

FORMS: Final[Mapping[AcquisitionField, AcquisitionForm]] = {
    AcquisitionField.MANUFACTURER: AcquisitionForm("who made the scanner", (*_MANUFACTURERS, OTHER)),
    AcquisitionField.MODALITY: AcquisitionForm("the kind of image", ("CT", "DX", "CR")),
    AcquisitionField.VIEW_POSITION: AcquisitionForm(
        "from which side a radiograph was taken", (*_VIEWS, OTHER)
    ),
    AcquisitionField.SLICE_THICKNESS: AcquisitionForm("nominal slice thickness, mm", step=0.25, maximum=20.0),
    AcquisitionField.IMAGE_ROWS: AcquisitionForm("height of the picture, pixels", step=256, maximum=16384.0),
    AcquisitionField.IMAGE_COLUMNS: AcquisitionForm(
        "width of the picture, pixels", step=256, maximum=16384.0
    ),
}


def form_of(field: str) -> AcquisitionForm | None:
    """Return what a field shows, or None where there is no such field."""
    try:
        return FORMS[AcquisitionField(field)]
    except ValueError:
        return None


def shown(field: AcquisitionField, value: object) -> str | float | int | None:
    """Return what is shown of an untrusted value; None where it is missing or none of the field's.

    >>> [shown(AcquisitionField.MANUFACTURER, name) for name in ("SIEMENS Healthineers", "GE MEDICAL SYSTEMS", "Acme", "")]
    ['siemens', 'ge', 'other', None]
    >>> [shown(AcquisitionField.SLICE_THICKNESS, mm) for mm in (0.625, 5.0, 0.0, 1000.0)]
    [0.75, 5.0, None, None]
    >>> [shown(AcquisitionField.IMAGE_ROWS, rows) for rows in (512, 2022, 3)]
    [512, 2048, None]
    """
    form = FORMS[field]
    if form.categories:
        return _category(field, form, value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    near = math.floor(value / form.step + 0.5) * form.step
    if not 0 < near <= form.maximum:
        return None
    return float(near) if field is AcquisitionField.SLICE_THICKNESS else int(near)


def _category(field: AcquisitionField, form: AcquisitionForm, value: object) -> str | None:
    text = " ".join(value.split()).upper() if isinstance(value, str) else ""
    if not text:
        return None
    if field is AcquisitionField.MANUFACTURER:
        return next(
            (name for name, begins in _MANUFACTURERS.items() if (text + " ").startswith(begins)), OTHER
        )
    if text in form.categories:
        return text
    return OTHER if OTHER in form.categories else None
