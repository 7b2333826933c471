"""What a person who looks after the quarantine may see of a file: technical facts, and a small picture.

Runs in a worker. The facts name nobody; the picture may show a name that was burned in, which is why it is asked for.
"""

import base64
import os
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from station.intake.workers.messages import Described, Refused, Rendered
from station.intake.workers.taking import open_plain
from station.intake.workers.terms import size
from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.reading import contain, read_dicom, read_header

_FACTS = ("SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames")
_MAX_PIXELS = 1 << 28
_PERCENT = (1.0, 99.0)
_GREY = 2


def describe(path: Path) -> Described:
    """Say what a file is; of one that is no DICOM, its size."""
    with open_plain(path) as file:
        bytes_ = os.fstat(file.fileno()).st_size
        try:
            header = read_header(file, _FACTS)
            return contain(partial(_described, header, bytes_))
        except PseudonymisationError:
            return Described(size_bytes=bytes_)


def render(path: Path, longest_side: int) -> Rendered | Refused:
    """Make a grey picture of the first frame, no side longer than `longest_side`."""
    try:
        with open_plain(path) as file:
            dataset = read_dicom(file.read())
        picture = contain(partial(_picture, dataset, longest_side))
    except PseudonymisationError as error:
        return Refused(reason=error.fault)
    return Rendered(png=base64.b64encode(_png(picture)).decode("ascii"))


def _described(header: Dataset, size_bytes: int) -> Described:
    meta = getattr(header, "file_meta", None)
    frames = header.get("NumberOfFrames")
    modality = str(header.get("Modality") or "").strip()
    return Described(
        size_bytes=size_bytes,
        sop_class_uid=_uid(header.get("SOPClassUID")),
        transfer_syntax_uid=_uid(meta.get("TransferSyntaxUID") if meta is not None else None),
        modality=modality if modality.isalnum() and modality.isascii() and modality.isupper() else "",
        rows=size(header.get("Rows")),
        columns=size(header.get("Columns")),
        frames=int(frames) if frames is not None and 0 <= int(frames) < 1 << 31 else None,
    )


def _uid(value: object) -> str:
    # Of a class or a syntax that the standard registers only: another could be the hospital's own.
    text = str(value or "").strip(" \0")
    registered = text.startswith("1.2.840.10008.") and all(part.isdecimal() for part in text.split("."))
    return text if registered and text.isascii() and len(text) <= 64 else ""


def _picture(dataset: Dataset, longest_side: int) -> NDArray[np.uint8]:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if rows * columns * samples > _MAX_PIXELS:
        raise PseudonymisationError(PseudonymisationFault.UNREADABLE)
    from pydicom.pixels import pixel_array  # noqa: PLC0415 - decoders are loaded when a person asks

    # pydicom decodes from the data set it read; one frame is enough to see what is written on it.
    dataset.file_meta.TransferSyntaxUID  # noqa: B018 - missing is refused here
    pixels = np.asarray(pixel_array(dataset, index=0), dtype=np.float32)
    if samples > 1 and pixels.ndim > _GREY:
        pixels = pixels.mean(axis=-1)
    step = max(1, -(-max(pixels.shape) // longest_side))
    small = pixels[::step, ::step]
    low, high = np.percentile(small, _PERCENT)
    scaled = np.clip((small - low) / max(float(high - low), 1.0), 0, 1)
    if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        scaled = 1 - scaled
    picture: NDArray[np.uint8] = (scaled * 255).astype(np.uint8)
    return picture


def _png(picture: NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit grey picture (PNG, ISO/IEC 15948: colour type 0, no filter)."""
    rows, columns = picture.shape
    lines = b"".join(b"\0" + row.tobytes() for row in picture)
    parts = (
        (b"IHDR", struct.pack("!IIBBBBB", columns, rows, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
        for kind, data in parts
    )
