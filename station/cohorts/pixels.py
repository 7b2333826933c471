"""From the bytes of one DICOM radiograph to the grey values a radiologist is shown, as 16 bits.

Follows the grayscale pipeline of PS3.4 N.2: stored values -> modality LUT (PS3.3 C.11.1) -> VOI LUT (PS3.3 C.11.2)
-> polarity (PS3.3 C.7.6.3.1.2). The result spans 0 (black) to 65535 (white) over the *nominal* range of the file's
own last LUT, not over the values that happen to occur, so equal exposure gives equal grey over patients.

This code meets hostile files: it runs in `station.cohorts.decoder_process` only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.multival import MultiValue

from station.cohorts.reading import check_shape, found, padding, parse, stored_values
from station.cohorts.unusable import Unusable, UnusableImage

_WHITE = 65_535.0
# Beyond these, arithmetic overflows before it means anything. NaN fails every comparison.
_RESCALE_LIMIT = 1e6
_SPACING_LIMITS_MM = (0.01, 10.0)


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One grey picture.

    Attributes:
        pixels: (height, width), 0 black to 65535 white.
        spacing_mm: (row spacing, column spacing), at the detector where the file does not say better; 1.0 if unknown.
        modality: the file's own.
    """

    pixels: NDArray[np.uint16]
    spacing_mm: tuple[float, float]
    modality: str


def read_radiograph(data: bytes) -> Radiograph:
    """Decode one radiograph.

    1. The file is DICOM in a transfer syntax of `DECODERS`.
    2. It is one grey frame of at most `MAX_PIXELS`, known before a pixel is decoded.
    3. Modality LUT, VOI LUT or window, polarity.

    Raises:
        UnusableImage: naming what it is not.
    """
    dataset = parse(data)
    check_shape(dataset)
    stored = stored_values(dataset)
    with found(Unusable.LOOKUP_TABLE):
        grey = _present(stored, dataset)
    with found(Unusable.PIXEL_ATTRIBUTES):
        spacing, modality = _spacing(dataset), str(dataset.get("Modality", ""))
    pixels = np.rint(np.clip(grey, 0.0, 1.0) * _WHITE).astype(np.uint16)
    return Radiograph(pixels=pixels, spacing_mm=spacing, modality=modality)


def _present(stored: NDArray[np.int32], dataset: Any) -> NDArray[np.float64]:  # noqa: ANN401
    """Return grey values, nominally 0 (black) to 1 (white)."""
    low, high = _stored_range(dataset)
    values: NDArray[np.float64]
    if dataset.get("ModalityLUTSequence"):
        values, (low, high) = _look_up(stored, dataset.ModalityLUTSequence[0])
    else:
        slope = float(dataset.get("RescaleSlope", None) or 1.0)
        intercept = float(dataset.get("RescaleIntercept", None) or 0.0)
        if not (_RESCALE_LIMIT**-1 <= abs(slope) <= _RESCALE_LIMIT and abs(intercept) <= _RESCALE_LIMIT):
            raise UnusableImage(Unusable.LOOKUP_TABLE)
        values = stored.astype(np.float64) * slope + intercept
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    if dataset.get("VOILUTSequence"):
        values, (low, high) = _look_up(np.rint(values).astype(np.int64), dataset.VOILUTSequence[0])
        grey = (values - low) / (high - low)
    elif dataset.get("WindowCenter", None) is not None and dataset.get("WindowWidth", None) is not None:
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        grey = window(values, centre, width, str(dataset.get("VOILUTFunction", None) or "LINEAR"))
    else:
        grey = (values - low) / (high - low)
    # PS3.3 C.7.6.3.1.2: in MONOCHROME1 the lowest value is shown white.
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1.0 - grey
    hidden = padding(stored, dataset)
    if hidden is not None:
        # Black, whatever the polarity.
        grey = np.where(hidden, 0.0, grey)
    return grey


def window(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """Apply one window (PS3.3 C.11.2.1.2 and C.11.2.1.3), onto 0 to 1.

    Raises:
        UnusableImage: a width the standard does not allow, or an unknown function.
    """
    smallest = 1.0 if function == "LINEAR" else np.finfo(np.float64).tiny
    if not (np.isfinite([centre, width]).all() and width >= smallest):
        raise UnusableImage(Unusable.LOOKUP_TABLE)
    if function == "LINEAR":
        if width == 1.0:
            return np.where(values > centre - 0.5, 1.0, 0.0)
        return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if function == "SIGMOID":
        # Bounded exponent: beyond it the curve is flat in 16 bits, and exp would overflow.
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -60.0, 60.0))))
    raise UnusableImage(Unusable.LOOKUP_TABLE)


def _look_up(
    values: NDArray[np.int32 | np.int64],
    item: Any,  # noqa: ANN401 - pydicom's own
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Apply a LUT item (PS3.3 C.11.1.1): descriptor (entries, first value mapped, bits), data."""
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 65_536
    raw = item.LUTData
    if isinstance(raw, bytes):
        table = np.frombuffer(raw, dtype="<u2" if len(raw) >= 2 * entries else "u1")
    else:
        table = np.asarray(raw, dtype=np.int64)
    if not 1 <= bits <= 16 or table.size < entries:
        raise UnusableImage(Unusable.LOOKUP_TABLE)
    index = np.clip(values.astype(np.int64) - first, 0, entries - 1)
    return table[:entries].astype(np.float64)[index], (0.0, float(2**bits - 1))


def _stored_range(dataset: Any) -> tuple[float, float]:  # noqa: ANN401
    bits = int(dataset.BitsStored)
    if dataset.PixelRepresentation == 1:
        return -float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)
    return 0.0, float(2**bits - 1)


def _first(value: Any) -> float:  # noqa: ANN401
    # A file may offer several windows; the first is the one to show first.
    return float(value[0] if isinstance(value, MultiValue | list | tuple) else value)


def _spacing(dataset: Any) -> tuple[float, float]:  # noqa: ANN401
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(number) for number in dataset[keyword].value)
        except (KeyError, TypeError, ValueError):
            continue
        least, most = _SPACING_LIMITS_MM
        if least <= row <= most and least <= column <= most:
            return row, column
    return 1.0, 1.0
