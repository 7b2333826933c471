"""Films in, findings out: what is masked, what may stay, what waits for a person."""

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from pixels_kit import Writing, film, legibility, pixels_of
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless, SecondaryCaptureImageStorage

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.pixels import Box, PixelInspector, PixelSettings
from station.pseudonymisation.pixels.picture import picture_of
from station.pseudonymisation.pixels.reading_text import Reader

ILLEGIBLE = 0.4
NAME = Writing("Jansen, Pieter 1957-03-12", 30, 60)
OTHER = Writing("Bakker, Jan 1961-11-30", 30, 60)


def fault_of(ds: Dataset, settings: PixelSettings | None = None) -> PseudonymisationFault:
    with pytest.raises(PseudonymisationError) as caught:
        PixelInspector(settings).inspect(ds)
    return caught.value.fault


@pytest.mark.parametrize(
    ("writing", "bits", "inverted"),
    [
        (NAME, 12, True),
        (Writing("DE VRIES MARIA", 300, 40, size=16, grey=0.0), 12, False),
        (Writing("BSN 123456782", 470, 250, size=14), 8, False),
        (Writing("Bakker^Jan", 250, 200, size=30, grey=1.0), 12, True),
        (Writing("AZM 4481-22 Dr. Smit", 60, 10, size=20, turned=True), 12, False),
        (Writing("ID 0048213", 250, 20, size=26, grey=0.05), 16, False),
    ],
    ids=lambda value: value.text if isinstance(value, Writing) else str(value),
)
def test_text_is_masked(writing: Writing, bits: int, *, inverted: bool) -> None:
    ds = film(writing, bits=bits, inverted=inverted)
    assert legibility(ds, writing) > 0.6, "the film shows it before"
    finding = PixelInspector().inspect(ds)
    assert finding.status == "masked"
    assert finding.claims_clean_pixels
    assert finding.regions >= 1
    assert legibility(finding.dataset, writing) < ILLEGIBLE


def test_the_rest_of_a_masked_film_is_as_it_was() -> None:
    ds = film(NAME)
    finding = PixelInspector().inspect(ds)
    before, after = pixels_of(ds), pixels_of(finding.dataset)
    changed = before != after
    assert changed[20:70].any()
    assert not changed[90:].any()
    assert changed.mean() < 0.06


def test_the_input_is_not_changed() -> None:
    ds = film(NAME)
    before = bytes(ds.PixelData)
    finding = PixelInspector().inspect(ds)
    assert ds.PixelData == before
    assert finding.dataset is not ds


def test_markers_stay() -> None:
    markers = Writing("PORTABLE", 20, 20, size=24), Writing("AP", 20, 460, size=24)
    finding = PixelInspector().inspect(film(*markers))
    assert finding.status == "inspected"
    assert legibility(finding.dataset, markers[0]) > 0.6


def test_a_name_beside_a_marker_goes_and_the_marker_stays() -> None:
    marker = Writing("PORTABLE", 20, 20, size=24)
    name = Writing("Jansen 0048213", 430, 200, size=24)
    finding = PixelInspector().inspect(film(marker, name))
    assert legibility(finding.dataset, name) < ILLEGIBLE
    assert legibility(finding.dataset, marker) > 0.6


def test_a_hospital_s_own_words_may_stay() -> None:
    word = Writing("ZUIDZAAL", 20, 60, size=28)
    assert PixelInspector().inspect(film(word)).status == "masked"
    settings = PixelSettings(allowed_words=("ZUIDZAAL",))
    assert PixelInspector(settings).inspect(film(word)).status == "inspected"


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_pixels_without_text_pass_as_they_came(syntax: str) -> None:
    ds = film()
    ds.compress(syntax)
    before = bytes(ds.PixelData)
    finding = PixelInspector().inspect(ds)
    assert finding.status == "inspected"
    assert finding.claims_clean_pixels
    assert finding.dataset is ds
    assert ds.PixelData == before
    assert ds.file_meta.TransferSyntaxUID == syntax


def test_compressed_pixels_with_text_come_out_plain() -> None:
    plain = film(NAME)
    ds = film(NAME)
    ds.compress(JPEGLSLossless)
    finding = PixelInspector().inspect(ds)
    assert ds.file_meta.TransferSyntaxUID == JPEGLSLossless
    assert finding.dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert len(finding.dataset.PixelData) == len(plain.PixelData)
    assert legibility(finding.dataset, NAME) < ILLEGIBLE


def test_every_frame_is_masked() -> None:
    finding = PixelInspector().inspect(film(NAME, frames=3))
    size = 512 * 512 * 2
    frames = [finding.dataset.PixelData[start : start + size] for start in range(0, 3 * size, size)]
    assert len(set(frames)) == 1
    assert legibility(finding.dataset, NAME) < ILLEGIBLE


def test_what_a_device_calls_burned_in_and_nobody_finds_waits_for_a_person() -> None:
    ds = film()
    ds.BurnedInAnnotation = "YES"
    assert fault_of(ds) is PseudonymisationFault.TEXT_DOUBTFUL


def test_a_film_full_of_text_waits_for_a_person() -> None:
    page = [Writing("Jansen Pieter 1957-03-12 ward 4 west", top, 20, size=24) for top in range(10, 480, 34)]
    assert fault_of(film(*page)) is PseudonymisationFault.TEXT_DOUBTFUL


def test_captures_wait_for_a_person() -> None:
    ds = film()
    ds.SOPClassUID = SecondaryCaptureImageStorage
    assert fault_of(ds) is PseudonymisationFault.SCREEN_CAPTURE
    ds = film()
    ds.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    assert fault_of(ds) is PseudonymisationFault.SCREEN_CAPTURE


def test_colour_waits_for_a_person() -> None:
    ds = film()
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"
    assert fault_of(ds) is PseudonymisationFault.PIXELS_IN_COLOUR


def _cut(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


def _huge(ds: Dataset) -> None:
    ds.Rows = ds.Columns = 65_535


def _garbled(ds: Dataset) -> None:
    ds.compress(JPEGLSLossless)
    data = bytearray(ds.PixelData)
    data[40:200] = bytes(160)
    ds.PixelData = bytes(data)


def _many_frames(ds: Dataset) -> None:
    ds.NumberOfFrames = 1_000_000


def _without_rows(ds: Dataset) -> None:
    del ds.Rows


@pytest.mark.parametrize("spoil", [_cut, _huge, _garbled, _many_frames, _without_rows])
def test_pixels_that_cannot_be_decoded_wait_for_a_person(spoil: object) -> None:
    ds = film()
    spoil(ds)  # type: ignore[operator]
    assert fault_of(ds) is PseudonymisationFault.PIXELS_UNDECODABLE


def test_without_tesseract_a_film_waits_unless_the_hospital_says_otherwise(tmp_path: Path) -> None:
    gone = str(tmp_path / "no-such-program")
    assert fault_of(film(NAME), PixelSettings(tesseract=gone)) is PseudonymisationFault.TEXT_DETECTOR_MISSING
    settings = PixelSettings(tesseract=gone, inspect="detect-only")
    finding = PixelInspector(settings).inspect(film(NAME))
    assert finding.status == "masked"
    assert not finding.claims_clean_pixels
    assert legibility(finding.dataset, NAME) < ILLEGIBLE


@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL])
def test_a_reading_process_that_hangs_or_dies_is_not_a_clean_film(sent: signal.Signals) -> None:
    reader = Reader(PixelSettings().tesseract, timeout_s=0.5)
    assert reader.is_there
    before = reader.process_id
    assert before is not None
    os.kill(before, sent)
    picture = picture_of(np.zeros((64, 64), dtype=np.uint16), inverted=False)
    with pytest.raises(PseudonymisationError) as refused:
        reader.words_in(picture)
    assert refused.value.fault is PseudonymisationFault.TEXT_DETECTOR_MISSING
    assert not Path(f"/proc/{before}").exists()
    # The next picture gets another process.
    assert reader.is_there
    assert reader.process_id not in {None, before}


def test_a_reading_process_ends_with_its_reader() -> None:
    reader = Reader(PixelSettings().tesseract, timeout_s=60)
    assert reader.is_there
    process = Path(f"/proc/{reader.process_id}")
    assert process.exists()
    del reader
    gc.collect()
    assert not process.exists()


def test_a_fork_starts_a_reading_process_of_its_own() -> None:
    reader = Reader(PixelSettings().tesseract, timeout_s=60)
    picture = picture_of(pixels_of(film(NAME)), inverted=False)
    words = reader.words_in(picture)
    before = reader.process_id
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if reader.words_in(picture) == words and reader.process_id != before:
                code = 0
        finally:
            # Also after an exception, which would else go on through pytest, twice.
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert reader.words_in(picture) == words
    assert reader.process_id == before


def test_what_was_read_before_changes_nothing() -> None:
    """One process for many pictures reads each as a process of its own would."""
    reader = Reader(PixelSettings().tesseract, timeout_s=60)
    pictures = [picture_of(pixels_of(film(text)), inverted=False) for text in (NAME, OTHER, NAME)]
    together = [reader.words_in(picture) for picture in pictures]
    alone = [Reader(PixelSettings().tesseract, timeout_s=60).words_in(picture) for picture in pictures]
    assert together == alone
    assert together[0]


def test_where_nobody_looks_nothing_is_claimed() -> None:
    finding = PixelInspector(PixelSettings(inspect="off")).inspect(film(NAME))
    assert (finding.status, finding.claims_clean_pixels) == ("not-inspected", False)


def test_a_scanner_s_own_slices_are_trusted_and_not_claimed() -> None:
    ds = film(bits=12)
    ds.Modality, ds.ImageType, ds.SOPClassUID = (
        "CT",
        ["ORIGINAL", "PRIMARY", "AXIAL"],
        "1.2.840.10008.5.1.4.1.1.2",
    )
    finding = PixelInspector().inspect(ds)
    assert (finding.status, finding.claims_clean_pixels) == ("not-inspected", False)
    ds.BurnedInAnnotation = "YES"
    assert fault_of(ds) is PseudonymisationFault.TEXT_DOUBTFUL


def test_a_person_s_boxes_are_masked_and_nothing_is_claimed() -> None:
    ds = film(NAME)
    finding = PixelInspector().mask_boxes(ds, [Box(20, 50, 70, 500), Box(600, 600, 700, 700)])
    assert (finding.status, finding.claims_clean_pixels) == ("masked", False)
    assert legibility(finding.dataset, NAME) < ILLEGIBLE
    assert np.array_equal(pixels_of(finding.dataset)[80:], pixels_of(ds)[80:])
