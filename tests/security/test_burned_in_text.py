"""A name burned into a film is gone from the file that leaves intake, and an OCR of another make-up does not find it."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pixels_kit import Writing, film, legibility, pixels_of
from pseudonym_files import identified
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scipy import ndimage

from station.pseudonymisation.engine import Pseudonymiser
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.pixels import PixelInspector

WRITINGS = (
    Writing("Jansen Pieter", 20, 20, size=26),
    Writing("1957-03-12", 64, 20, size=26),
    Writing("PORTABLE", 24, 370, size=24),
)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
_PIXEL_MODULE = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelData", "ImageType", "BurnedInAnnotation",
)  # fmt: skip


def read_aloud(ds: Dataset) -> str:
    """Read a film with tesseract's whole-page mode, three times enlarged: not how the station reads."""
    pixels = pixels_of(ds)
    enlarged = ndimage.zoom((pixels - pixels.min()) / max(np.ptp(pixels), 1), 3, order=1)
    words = ""
    for light in (enlarged, 1 - enlarged):
        grey = (np.clip(light, 0, 1) * 255).astype(np.uint8)
        image = b"P5 %d %d 255\n" % (grey.shape[1], grey.shape[0]) + grey.tobytes()
        for mode in ("6", "12"):
            words += subprocess.run(
                ["/usr/bin/tesseract", "stdin", "stdout", "--psm", mode],
                input=image,
                capture_output=True,
                check=True,
            ).stdout.decode("utf-8", "replace")
    return words.upper()


@pytest.fixture
def sent(tmp_path: Path) -> Dataset:
    """A film as the X-ray room sends it, with a name, a date of birth and a marker in its pixels."""
    ds = identified()
    written = film(*WRITINGS)
    for keyword in _PIXEL_MODULE:
        ds[keyword] = written[keyword]
    for keyword in (
        "WindowCenter",
        "WindowWidth",
        "VOILUTSequence",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
    ):
        if keyword in ds:
            del ds[keyword]
    return ds


def pseudonymised(ds: Dataset, tmp_path: Path) -> Dataset:
    key = PseudonymKey.generate(tmp_path / "pseudonym.key", now=NOW)
    finding = PixelInspector().inspect(ds)
    return Pseudonymiser(key, "registry").pseudonymise(finding.dataset, finding).dataset


def test_nobody_reads_the_name_afterwards(sent: Dataset, tmp_path: Path) -> None:
    before = read_aloud(sent)
    assert "JANSEN" in before
    assert "1957" in before

    after = pseudonymised(sent, tmp_path)

    read = read_aloud(after)
    assert "JANSEN" not in read
    assert "PIETER" not in read
    assert "1957" not in read
    for writing in WRITINGS[:2]:
        assert legibility(sent, writing) > 0.6
        assert legibility(after, writing) < 0.4
    assert legibility(after, WRITINGS[2]) > 0.6, "the marker stays"


def test_what_was_done_stands_in_the_file(sent: Dataset, tmp_path: Path) -> None:
    after = pseudonymised(sent, tmp_path)
    assert after.BurnedInAnnotation == "NO"
    assert "113101" in [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert isinstance(after.DeidentificationMethodCodeSequence, Sequence)


def test_nothing_is_claimed_of_pixels_that_nobody_inspected(sent: Dataset, tmp_path: Path) -> None:
    key = PseudonymKey.generate(tmp_path / "pseudonym.key", now=NOW)
    after = Pseudonymiser(key, "registry").pseudonymise(sent).dataset
    assert "113101" not in [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
