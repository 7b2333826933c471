"""Files made to crash, hang or flood the decoder cost one image each, and say nothing but a reason."""

import contextlib
import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openjpeg
import pytest
from cohort_files import DEFINITION, KEY, by_gdcm, case, compressed, encoded, picture, radiograph
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1

from policies.splits import Split
from station.cohorts import FrozenCohort, Unusable, freeze
from station.cohorts.decoder import Decoder
from station.cohorts.unusable import UnusableImage

GOOD = encoded(radiograph(picture()))


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def finding(decoder: Decoder, data: bytes) -> Unusable:
    with pytest.raises(UnusableImage) as caught:
        decoder.decode(data)
    return caught.value.reason


SHAPE = (64, 96)


def jpeg2000(rows: int, columns: int) -> bytes:
    """A JPEG 2000 file whose codestream claims another size than its data elements."""
    pixels = picture(shape=SHAPE)
    frame = bytearray(openjpeg.encode(pixels, bits_stored=12))
    size = frame.index(
        b"\xff\x51"
    )  # SIZ: marker, Lsiz, Rsiz, then Xsiz and Ysiz; XTsiz and YTsiz 8 bytes later
    for offset, value in ((6, columns), (10, rows), (22, columns), (26, rows)):
        frame[size + offset : size + offset + 4] = value.to_bytes(4, "big")
    return compressed(radiograph(pixels), JPEG2000Lossless, bytes(frame))


def test_the_codestream_is_sound_before_it_is_changed(decoder: Decoder) -> None:
    assert decoder.decode(jpeg2000(*SHAPE)).pixels.shape == SHAPE


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31, 2**31), (1, 1), (0, 0)])
def test_a_codestream_that_claims_another_size_gives_no_image(
    decoder: Decoder, size: tuple[int, int]
) -> None:
    assert finding(decoder, jpeg2000(*size)) in {
        Unusable.PIXEL_DATA,
        Unusable.DECODER_CRASHED,
        Unusable.TOO_LARGE,
    }
    assert decoder.decode(GOOD).pixels.shape == picture().shape


@pytest.mark.parametrize("size", [(65_000, 65_000), (1, 1), (0, 0), (64, 97)])
@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGBaseline8Bit])
def test_a_jpeg_that_claims_another_size_gives_no_image(
    decoder: Decoder, syntax: UID, size: tuple[int, int]
) -> None:
    """GDCM decodes in the confined process too, and is believed no more than the others."""
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    pixels = picture(shape=SHAPE, bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    data = by_gdcm(encoded(radiograph(pixels, bits=bits)), syntax)
    assert decoder.decode(data).pixels.shape == SHAPE
    start = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc3"))
    claimed = data[: start + 5] + size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big") + data[start + 9 :]
    assert finding(decoder, claimed) in {
        Unusable.PIXEL_DATA,
        Unusable.DECODER_CRASHED,
        Unusable.TOO_LARGE,
    }
    for cut in range(start, len(data) - 40, max(1, len(data) // 12)):
        with contextlib.suppress(UnusableImage):
            assert decoder.decode(data[:cut]).pixels.shape == SHAPE
    assert decoder.decode(GOOD).pixels.shape == picture().shape


def test_a_decoder_that_hangs_is_killed_and_replaced() -> None:
    decoder = Decoder()
    patience_s = decoder._timeout_s
    try:
        decoder.decode(GOOD)
        os.kill(running(decoder), signal.SIGSTOP)
        # Only of the one that hangs: a process that starts may take longer than that.
        decoder._timeout_s = 1
        assert finding(decoder, GOOD) is Unusable.DECODER_TIMEOUT
        decoder._timeout_s = patience_s
        assert decoder.decode(GOOD).modality == "DX"
    finally:
        decoder.close()


def test_a_decoder_that_dies_in_the_middle_is_replaced(decoder: Decoder) -> None:
    decoder.decode(GOOD)
    process = decoder._process
    assert process is not None
    assert process.stdin is not None
    process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(decoder.decode, GOOD)
        deadline = time.monotonic() + 60
        # Until the request lies in the stopped process's pipe.
        while not struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, b"\0" * 4))[0]:
            assert time.monotonic() < deadline
        process.kill()
        error = future.exception(timeout=60)
    assert isinstance(error, UnusableImage)
    assert error.reason is Unusable.DECODER_CRASHED
    assert decoder.decode(GOOD).modality == "DX"


def test_one_hostile_file_costs_one_image(tmp_path: Path) -> None:
    numbers = [number for number in range(40) if KEY.split_of(f"PATIENT{number}") is Split.TRAINING][:4]
    hostile = jpeg2000(60_000, 60_000)
    sources = [case(tmp_path, number, data=hostile if number == numbers[1] else None) for number in numbers]
    cohort = freeze(DEFINITION, sources, tmp_path / "out", KEY)
    assert isinstance(cohort, FrozenCohort)
    assert cohort.images_by_split[Split.TRAINING] == 3
    assert sum(cohort.left_out.values()) == 1


def running(decoder: Decoder) -> int:
    process = decoder._process
    assert process is not None
    return process.pid
