"""Pixels come out of every transfer syntax as stored values, or not at all."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pixels_kit import Writing, film, legibility, pixels_of
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from station.pseudonymisation.faults import PseudonymisationError, PseudonymisationFault
from station.pseudonymisation.pixels import PixelInspector
from station.pseudonymisation.pixels.codestreams import codestream_size
from station.pseudonymisation.pixels.decoding import frames_of, layout_of

NAME = Writing("Jansen, Pieter 1957-03-12", 30, 60)


def fault_of(ds: Dataset) -> PseudonymisationFault:
    with pytest.raises(PseudonymisationError) as caught:
        PixelInspector().inspect(ds)
    return caught.value.fault


def through(ds: Dataset, folder: Path, *, implicit: bool = False, little: bool = True) -> Dataset:
    """Write a film and read it again, as a file comes."""
    ds.SOPInstanceUID, ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.3"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    if implicit:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    if not little:
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        ds.PixelData = np.frombuffer(ds.PixelData, dtype="<u2").astype(">u2").tobytes()
    path = folder / "film.dcm"
    dcmwrite(path, ds, enforce_file_format=True)
    return dcmread(path)


def jpeg(ds: Dataset, folder: Path, *arguments: str) -> Dataset:
    """Compress with dcmtk: pydicom writes no JPEG."""
    through(ds, folder)
    made = folder / "jpeg.dcm"
    subprocess.run(["/usr/bin/dcmcjpeg", *arguments, str(folder / "film.dcm"), str(made)], check=True)
    return dcmread(made)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_frames_are_the_stored_values(syntax: str, bits: int) -> None:
    ds = film(NAME, bits=bits, frames=2)
    plain = pixels_of(ds)
    ds.compress(syntax)
    frames = list(frames_of(ds, layout_of(ds)))
    assert len(frames) == 2
    assert all(np.array_equal(frame, plain) for frame in frames)


def test_signed_values_keep_their_sign(tmp_path: Path) -> None:
    ds = film(bits=12)
    values = pixels_of(ds).astype(np.int16) - 2048
    ds.PixelRepresentation, ds.PixelData = 1, values.astype("<i2").tobytes()
    assert np.array_equal(next(frames_of(ds, layout_of(ds))), values)
    # The sign need not be written out above the high bit.
    ds.PixelData = (values & 0x0FFF).astype("<u2").tobytes()
    assert np.array_equal(next(frames_of(ds, layout_of(ds))), values)
    ds.compress(JPEG2000Lossless)
    assert np.array_equal(next(frames_of(ds, layout_of(ds))), values)


def test_jpeg_lossless_is_the_stored_values(tmp_path: Path) -> None:
    plain = pixels_of(film(NAME))
    ds = jpeg(film(NAME), tmp_path, "+e1")
    assert ds.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert np.array_equal(next(frames_of(ds, layout_of(ds))), plain)


def test_a_name_in_a_lossy_film_is_masked_and_the_loss_stays_stated(tmp_path: Path) -> None:
    ds = jpeg(film(NAME, bits=8), tmp_path, "+eb")
    assert ds.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    ds.LossyImageCompression = "00"
    finding = PixelInspector().inspect(ds)
    assert finding.status == "masked"
    assert legibility(finding.dataset, NAME) < 0.4
    assert finding.dataset.LossyImageCompression == "01"
    assert ds.LossyImageCompression == "00", "the input is not changed"


def test_near_lossless_is_lossy() -> None:
    ds = film(NAME, bits=8)
    ds.compress(JPEGLSNearLossless, jls_error=2)
    finding = PixelInspector().inspect(ds)
    assert finding.status == "masked"
    assert finding.dataset.LossyImageCompression == "01"


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, False)])
def test_a_masked_film_is_written_as_it_says(tmp_path: Path, *, implicit: bool, little: bool) -> None:
    ds = film(NAME)
    ds.WindowCenter, ds.PatientName = [2048, 1000], "Jansen^Pieter"
    item = Dataset()
    item.CodeValue, item.Rows = "R-1", 7
    ds.ViewCodeSequence = [item]
    read = through(ds, tmp_path, implicit=implicit, little=little)
    finding = PixelInspector().inspect(read)
    assert finding.status == "masked"
    path = tmp_path / "masked.dcm"
    dcmwrite(path, finding.dataset, enforce_file_format=True)
    again = dcmread(path)
    assert again.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert (again.Rows, list(again.WindowCenter)) == (512, [2048, 1000])
    assert (again.ViewCodeSequence[0].CodeValue, again.ViewCodeSequence[0].Rows) == ("R-1", 7)
    assert legibility(again, NAME) < 0.4
    assert np.array_equal(pixels_of(again)[100:], pixels_of(film(NAME))[100:])


def test_text_in_bits_that_no_viewer_shows_waits_for_a_person() -> None:
    clean, written = film(), film(NAME)
    hidden = (pixels_of(clean) != pixels_of(written)).astype(np.uint16) << 15
    clean.PixelData = (pixels_of(clean).astype(np.uint16) | hidden).tobytes()
    assert fault_of(clean) is PseudonymisationFault.PIXELS_IN_SPARE_BITS
    clean.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    clean.Modality, clean.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert fault_of(clean) is PseudonymisationFault.PIXELS_IN_SPARE_BITS
    clean.compress(RLELossless)
    assert fault_of(clean) is PseudonymisationFault.PIXELS_IN_SPARE_BITS


def test_values_that_do_not_lie_at_the_low_bits_wait() -> None:
    ds = film(NAME)
    ds.PixelData = (pixels_of(ds).astype(np.uint16) << 4).tobytes()
    ds.HighBit = 15
    assert fault_of(ds) is PseudonymisationFault.PIXELS_UNDECODABLE


def _grow_jpeg_2000(frame: bytearray) -> None:
    frame[8:16] = struct.pack(">2I", 60_000, 60_000)


def _grow_jpeg_ls(frame: bytearray) -> None:
    at = frame.index(b"\xff\xf7")
    frame[at + 5 : at + 9] = struct.pack(">2H", 65_000, 65_000)


@pytest.mark.parametrize(("syntax", "grow"), [(JPEG2000, _grow_jpeg_2000), (JPEGLSLossless, _grow_jpeg_ls)])
def test_a_codestream_larger_than_its_header_meets_no_codec(
    syntax: str, grow: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = film()
    ds.compress(JPEG2000Lossless if syntax == JPEG2000 else syntax)
    frame = bytearray(get_frame(ds.PixelData, 0, number_of_frames=1))
    assert codestream_size(bytes(frame)) is not None
    grow(frame)  # type: ignore[operator]
    ds.PixelData = encapsulate([bytes(frame)])
    met: list[object] = []
    monkeypatch.setattr("station.pseudonymisation.pixels.decoding.get_decoder", met.append)
    assert fault_of(ds) is PseudonymisationFault.PIXELS_UNDECODABLE
    assert met == []


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xc0\0\x0b\x08", b"\xff\x4f\xff\x51\0\x29", b"GIF89a", b"\xff\xd8" + b"\xff\xfe\0\2" * 500])  # fmt: skip
def test_what_is_no_codestream_has_no_size(data: bytes) -> None:
    assert codestream_size(data) is None
