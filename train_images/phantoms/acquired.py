"""How a phantom was "taken", read from its own header as intake reads a real image's."""

from collections.abc import Mapping
from pathlib import Path

from pydicom import dcmread


def acquired(image: Path) -> Mapping[str, str | float | int | None]:
    """Return the acquisition fields of one DICOM file by name; empty text and None mean that it does not say.

    Args:
        image: a file that the phantoms wrote.
    """
    header = dcmread(image, stop_before_pixels=True)
    thickness = header.get("SliceThickness")
    return {
        "manufacturer": str(header.get("Manufacturer", "")),
        "modality": str(header.get("Modality", "")),
        "view_position": str(header.get("ViewPosition", "")),
        "slice_thickness_mm": None if thickness is None else float(thickness),
        "image_rows": int(header.Rows),
        "image_columns": int(header.Columns),
    }
