"""The inspection of an instance's pixels: what is trusted, searched, masked, searched again, and what waits for a person.

Runs in a worker of intake. Invariants: 113101 is claimed only when both detectors looked at every frame and find nothing after
masking; pixels in which nothing was masked are the input's own bytes; nothing but a fault's code leaves on an error.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.pixels.allowed import shipped_words
from station.pseudonymisation.pixels.boxes import Box
from station.pseudonymisation.pixels.decoding import (
    LOSSY,
    Frame,
    Layout,
    frames_of,
    layout_of,
    refuse_spare_bits,
)
from station.pseudonymisation.pixels.device_rules import Verdict, verdict_on
from station.pseudonymisation.pixels.faces import recognizable_face
from station.pseudonymisation.pixels.masking import mask
from station.pseudonymisation.pixels.reading_text import Reader
from station.pseudonymisation.pixels.settings import PixelSettings
from station.pseudonymisation.pixels.text import TextSearch
from station.pseudonymisation.reading import contain
from station.pseudonymisation.text_rules import IdentityWords

_PASSES = 2
_PIXEL_DATA = Tag(0x7FE0, 0x0010)
# Compressed bytes and their offsets, which mean nothing once the pixels are written plain.
_COMPRESSED_ONLY = (Tag(0x7FE0, 0x0001), Tag(0x7FE0, 0x0002))
_LOSSY = Tag(0x0028, 0x2110)
_RANGES = ("SmallestImagePixelValue", "LargestImagePixelValue")


@dataclass(frozen=True, slots=True)
class PixelFinding:
    """What the inspection of an instance found.

    Attributes:
        status: how far it went; "not-inspected" claims nothing.
        claims_clean_pixels: both detectors looked at every frame, and nothing that may not stay is left.
        recognizable_face: whether a face could be rebuilt; None where the header does not tell.
        regions: how many boxes were masked, over all frames.
        dataset: the instance itself, or a copy with other pixels where something was masked.
    """

    status: Literal["not-inspected", "inspected", "masked"]
    claims_clean_pixels: bool
    recognizable_face: bool | None
    regions: int
    dataset: Dataset


class PixelInspector:
    """Inspects instances one after the other; holds no state of theirs."""

    def __init__(self, settings: PixelSettings | None = None) -> None:
        self._settings = settings or PixelSettings()
        self._allowed = shipped_words() | frozenset(self._settings.allowed_words)
        self._reader = _reader_for(self._settings)

    def inspect(self, ds: Dataset) -> PixelFinding:
        """Look at one instance; it is not changed.

        1. Device rules: trusted, to be searched, or for a person.
        2. Every frame is searched, masked, and searched again.

        Raises:
            PseudonymisationError: for a person, with the reason's code: a screen capture, colour, pixels that cannot be decoded,
                a detector that is missing, text that stays after masking, too much to mask.
        """
        return contain(lambda: self._inspect(ds))

    def mask_boxes(self, ds: Dataset, boxes: Sequence[Box]) -> PixelFinding:
        """Mask what a person marked, in every frame; nothing is searched, and nothing is claimed.

        Raises:
            PseudonymisationError: the pixels cannot be decoded.
        """
        return contain(lambda: self._mask_boxes(ds, boxes))

    def _inspect(self, ds: Dataset) -> PixelFinding:
        face = recognizable_face(ds)
        if self._settings.inspect == "off":
            return PixelFinding("not-inspected", False, face, 0, ds)
        verdict = verdict_on(ds)
        if verdict is Verdict.TRUST:
            refuse_spare_bits(ds)
            return PixelFinding("not-inspected", False, face, 0, ds)
        if verdict is Verdict.QUARANTINE:
            raise PseudonymisationError(PseudonymisationFault.SCREEN_CAPTURE)
        if self._reader is None and self._settings.inspect == "require":
            raise PseudonymisationError(PseudonymisationFault.TEXT_DETECTOR_MISSING)
        own = frozenset(word.upper() for word in IdentityWords.of(ds).all_words)
        search = TextSearch(self._reader, self._allowed, own)
        layout = layout_of(ds)
        regions, frames = 0, []
        for frame in frames_of(ds, layout):
            regions += self._clean(search, frame, layout)
            frames.append(frame)
        if regions == 0 and _says_burned_in(ds):
            # The device says that there is text, and neither detector sees it.
            raise PseudonymisationError(PseudonymisationFault.TEXT_DOUBTFUL)
        claims = self._reader is not None
        if regions == 0:
            return PixelFinding("inspected", claims, face, 0, ds)
        return PixelFinding("masked", claims, face, regions, _with_pixels(ds, layout, frames))

    def _clean(self, search: TextSearch, frame: Frame, layout: Layout) -> int:
        """Mask what may not stay in one frame; returns how many boxes."""
        masked: list[Box] = []
        for _ in range(_PASSES):
            found = search.forbidden(frame, inverted=layout.inverted)
            if not found:
                return len(masked)
            masked += found
            if sum(box.area for box in masked) > self._settings.most_masked * frame.size:
                raise PseudonymisationError(PseudonymisationFault.TEXT_DOUBTFUL)
            mask(frame, found)
        if search.forbidden(frame, inverted=layout.inverted):
            raise PseudonymisationError(PseudonymisationFault.TEXT_DOUBTFUL)
        return len(masked)

    def _mask_boxes(self, ds: Dataset, boxes: Sequence[Box]) -> PixelFinding:
        face = recognizable_face(ds)
        if not boxes:
            return PixelFinding("not-inspected", False, face, 0, ds)
        layout = layout_of(ds)
        inside = [box.grown(0, layout.rows, layout.columns) for box in boxes]
        inside = [box for box in inside if box.height > 0 and box.width > 0]
        frames = list(frames_of(ds, layout))
        for frame in frames:
            mask(frame, inside)
        return PixelFinding(
            "masked", False, face, len(inside) * len(frames), _with_pixels(ds, layout, frames)
        )


def _reader_for(settings: PixelSettings) -> Reader | None:
    if settings.inspect == "off":
        return None
    reader = Reader(settings.tesseract, settings.tesseract_timeout_s)
    return reader if reader.is_there else None


def _says_burned_in(ds: Dataset) -> bool:
    return str(ds.get("BurnedInAnnotation") or "").strip().upper() == "YES"


def _with_pixels(ds: Dataset, layout: Layout, frames: list[Frame]) -> Dataset:
    """Return a shallow copy with other pixels, written plain in Explicit VR Little Endian."""
    copy = Dataset()
    copy.update({tag: ds.get_item(tag) for tag in list(ds.keys()) if tag not in _COMPRESSED_ONLY})
    implicit, little = ds.original_encoding
    if implicit is not None and little is not None:
        copy.set_original_encoding(implicit, little)
    data = b"".join(
        np.ascontiguousarray(frame).astype(frame.dtype.newbyteorder("<")).tobytes() for frame in frames
    )
    vr = "OB" if layout.bits_allocated == 8 else "OW"
    copy[_PIXEL_DATA] = DataElement(_PIXEL_DATA, vr, data + b"\0" * (len(data) % 2))
    for keyword in _RANGES:
        # They may have been the text's own values.
        if keyword in copy:
            del copy[keyword]
    said = str(ds.get("LossyImageCompression") or "").strip()
    if layout.transfer_syntax in LOSSY and not (layout.transfer_syntax == JPEG2000 and said == "00"):
        # What JPEG took away does not come back by writing it plain.
        copy[_LOSSY] = DataElement(_LOSSY, "CS", "01")
    # New and deep: pydicom changes an element in place, and the input's must stay what it is.
    meta = deepcopy(ds.file_meta)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    copy.file_meta = meta
    return copy
