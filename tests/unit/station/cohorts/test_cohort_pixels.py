"""The grayscale pipeline against pydicom's own functions and against values worked out by hand."""

import contextlib
from typing import Any

import jpeg_ls
import numpy as np
import openjpeg
import pytest
from cohort_files import by_gdcm, compressed, encoded, picture, radiograph
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import (
    MPEG2MPML,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from station.cohorts.pixels import read_radiograph, window
from station.cohorts.unusable import Unusable, UnusableImage


def grey(dataset: Dataset) -> Any:
    return read_radiograph(encoded(dataset)).pixels.astype(np.float64) / 65535


def reason(data: bytes) -> Unusable:
    with pytest.raises(UnusableImage) as caught:
        read_radiograph(data)
    return caught.value.reason


def test_without_a_window_the_nominal_range_is_shown_whole() -> None:
    pixels = np.array([[0, 1024], [2048, 4095]], dtype=np.uint16)
    assert grey(radiograph(pixels)) == pytest.approx(pixels / 4095, abs=1e-5)


def test_monochrome1_is_inverted() -> None:
    pixels = picture()
    plain = grey(radiograph(pixels))
    inverted = grey(radiograph(pixels, PhotometricInterpretation="MONOCHROME1"))
    assert inverted == pytest.approx(1 - plain, abs=1e-4)


def test_eight_bit_pictures_span_the_same_range() -> None:
    pixels = np.array([[0, 51], [102, 255]], dtype=np.uint8)
    assert grey(radiograph(pixels, bits=8)) == pytest.approx(pixels / 255, abs=1e-4)


def test_signed_values_and_a_negative_slope_keep_their_order() -> None:
    pixels = np.array([[-2048, 0], [1, 2047]], dtype=np.int16)
    dataset = radiograph(pixels, RescaleSlope=-1, RescaleIntercept=100)
    assert grey(dataset) == pytest.approx((2047 - pixels.astype(float)) / 4095, abs=1e-4)


def test_bits_above_those_stored_are_not_part_of_the_value() -> None:
    pixels = picture()
    assert np.array_equal(grey(radiograph(pixels | 0xF000)), grey(radiograph(pixels)))


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG2000Lossless, lambda pixels: openjpeg.encode(pixels, bits_stored=12)),
        (JPEGLSLossless, lambda pixels: bytes(jpeg_ls.encode_array(pixels & 0xFFF))),
    ],
)
def test_compressed_signed_values_are_those_before_compression(syntax: UID, encode: Any) -> None:
    pixels = (picture(shape=(64, 96)).astype(np.int32) - 2048).astype(np.int16)
    plain = read_radiograph(encoded(radiograph(pixels)))
    source = pixels if syntax is JPEG2000Lossless else pixels.view(np.uint16)
    packed = read_radiograph(compressed(radiograph(pixels), syntax, encode(source)))
    assert np.array_equal(plain.pixels, packed.pixels)


@given(
    centre=st.floats(-5000, 5000),
    width=st.floats(2, 9000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_windows_agree_with_pydicom(centre: float, width: float, function: str) -> None:
    if function == "SIGMOID":
        width += 200  # pydicom's own exponent overflows on steep ones
    values = np.arange(0, 4096, 17, dtype=np.uint16).reshape(1, -1)
    dataset = radiograph(
        values, WindowCenter=round(centre, 3), WindowWidth=round(width, 3), VOILUTFunction=function
    )
    theirs = np.asarray(apply_windowing(values, dataset)) / 4095
    ours = window(
        values.astype(np.float64), float(dataset.WindowCenter), float(dataset.WindowWidth), function
    )
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_first_of_several_windows_counts() -> None:
    pixels = picture()
    one = grey(radiograph(pixels, WindowCenter=1000, WindowWidth=400))
    several = grey(radiograph(pixels, WindowCenter=[1000, 3000], WindowWidth=[400, 800]))
    assert np.array_equal(one, several)


def lut(descriptor: list[int], data: list[int]) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = descriptor
    item["LUTDescriptor"].VR = "US"
    item.LUTData = data
    item["LUTData"].VR = "US"
    item.ModalityLUTType = "US"
    return item


def test_a_voi_table_is_looked_up_and_wins_over_a_window() -> None:
    pixels = np.array([[9, 10], [11, 99]], dtype=np.uint16)
    dataset = radiograph(
        pixels, VOILUTSequence=[lut([3, 10, 10], [0, 500, 1023])], WindowCenter=1, WindowWidth=2
    )
    assert grey(dataset) == pytest.approx(np.array([[0, 0], [500 / 1023, 1]]), abs=1e-4)


def test_a_modality_table_comes_before_the_window() -> None:
    pixels = np.array([[0, 1, 2]], dtype=np.uint16)
    dataset = radiograph(pixels, ModalityLUTSequence=[lut([3, 0, 8], [255, 128, 0])])
    assert grey(dataset) == pytest.approx(np.array([[1, 128 / 255, 0]]), abs=1e-4)


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whatever_the_polarity(polarity: str) -> None:
    pixels = np.array([[0, 5], [4095, 2000]], dtype=np.uint16)
    dataset = radiograph(pixels, PhotometricInterpretation=polarity, PixelPaddingValue=4095)
    dataset["PixelPaddingValue"].VR = "US"
    assert grey(dataset)[1, 0] == 0


def test_spacing_and_modality_are_told() -> None:
    image = read_radiograph(encoded(radiograph(picture(), ImagerPixelSpacing=[0.3, 0.15])))
    assert image.spacing_mm == (0.3, 0.15)
    assert image.modality == "DX"


@pytest.mark.parametrize("spacing", [[0, 0], [1e9, 1e9], None])
def test_nonsense_spacing_is_one_millimetre(spacing: list[float] | None) -> None:
    assert read_radiograph(encoded(radiograph(picture(), ImagerPixelSpacing=spacing))).spacing_mm == (
        1.0,
        1.0,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"PhotometricInterpretation": "RGB"}, Unusable.NOT_A_RADIOGRAPH),
        ({"SamplesPerPixel": 3}, Unusable.NOT_A_RADIOGRAPH),
        ({"NumberOfFrames": 2}, Unusable.NOT_A_RADIOGRAPH),
        ({"Rows": 0}, Unusable.PIXEL_ATTRIBUTES),
        ({"Rows": None}, Unusable.PIXEL_ATTRIBUTES),
        ({"BitsStored": 17}, Unusable.PIXEL_ATTRIBUTES),
        ({"HighBit": 15}, Unusable.PIXEL_ATTRIBUTES),
        ({"BitsAllocated": 32}, Unusable.PIXEL_ATTRIBUTES),
        ({"Rows": 60000, "Columns": 60000}, Unusable.TOO_LARGE),
        ({"Rows": 400}, Unusable.PIXEL_DATA),
        ({"PixelData": None}, Unusable.PIXEL_DATA),
        ({"WindowCenter": 1, "WindowWidth": 0}, Unusable.LOOKUP_TABLE),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, Unusable.LOOKUP_TABLE),
        ({"VOILUTSequence": [lut([3, 10, 10], [0, 500])]}, Unusable.LOOKUP_TABLE),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "0"}, Unusable.LOOKUP_TABLE),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1e12"}, Unusable.LOOKUP_TABLE),
        ({"VOILUTSequence": [Dataset()]}, Unusable.LOOKUP_TABLE),
    ],
)
def test_what_is_no_usable_radiograph_says_why(changes: dict[str, Any], expected: Unusable) -> None:
    assert reason(encoded(radiograph(picture(), **changes))) is expected


def test_other_bytes_and_other_transfer_syntaxes_say_why() -> None:
    assert reason(b"") is Unusable.NOT_DICOM
    assert reason(b"%PDF-1.7 " * 99) is Unusable.NOT_DICOM
    # No decoder of ours reads video.
    assert reason(compressed(radiograph(picture()), MPEG2MPML, b"\0\0")) is Unusable.TRANSFER_SYNTAX
    assert reason(compressed(radiograph(picture()), JPEGLossless, b"\0\0")) is Unusable.PIXEL_DATA


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@settings(max_examples=300, deadline=None)
@given(cut=st.integers(0, 1400), flip=st.integers(0, 1400), value=st.integers(0, 255))
def test_damaged_files_give_an_image_or_a_reason_and_nothing_else(cut: int, flip: int, value: int) -> None:
    data = bytearray(encoded(radiograph(picture(), WindowCenter=2048, WindowWidth=4096)))
    data[flip % len(data)] = value
    with contextlib.suppress(UnusableImage):
        assert read_radiograph(bytes(data[: len(data) - cut])).pixels.dtype == np.uint16


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1, JPEGBaseline8Bit])
def test_the_jpegs_of_older_archives_are_read(syntax: UID) -> None:
    """Written by GDCM: the lossless ones keep every value, the others nearly."""
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    rows = np.arange(64, dtype=np.uint16)[:, np.newaxis] * np.ones(48, np.uint16)
    pixels = (rows * (3 if bits == 8 else 50)).astype(np.uint8 if bits == 8 else np.uint16)
    data = by_gdcm(encoded(radiograph(pixels, bits=bits)), syntax)
    image = read_radiograph(data)
    expected = np.rint(pixels / (2**bits - 1) * 65535)
    worst = np.abs(image.pixels.astype(float) - expected).max()
    assert worst == 0 if syntax in {JPEGLossless, JPEGLosslessSV1} else worst < 65535 * 0.02


def test_a_side_longer_than_nifti_can_say_is_too_large() -> None:
    assert reason(encoded(radiograph(np.zeros((40_000, 1), np.uint16)))) is Unusable.TOO_LARGE
