"""Series made to exhaust, crash or deceive cost one case each, in bounded time and memory."""

import resource
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_files import KEY, encoded, picture, radiograph
from ct_files import CT_DEFINITION, ct_case
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from policies.documents import digest_of_file
from policies.splits import Split
from station.cohorts import CaseSource, FrozenCohort, SourceFile, Unusable, freeze
from station.cohorts.decoder import Decoder
from station.cohorts.decoding import DecoderPool
from station.cohorts.reading import MAX_INFLATED_BYTES
from station.cohorts.unusable import UnusableImage
from station.cohorts.volumes import Volume, write_volume

GIVEN = next(n for n in range(32) if KEY.split_of(f"PATIENT{n}") is Split.TRAINING)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(size=1, timeout_s=300) as pool:
        yield pool


def made(case: CaseSource, pool: DecoderPool, out: Path) -> Volume | Unusable:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    result = write_volume(case.files, out, pool)
    assert time.monotonic() - started < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    if isinstance(result, Unusable):
        assert not out.exists()
    return result


def test_a_hundred_thousand_slices_are_refused_before_one_is_read(tmp_path: Path, pool: DecoderPool) -> None:
    case = ct_case(tmp_path, 0)
    many = replace(case, files=tuple(SourceFile(tmp_path / f"absent-{number}") for number in range(100_000)))
    started = time.process_time()
    assert made(many, pool, tmp_path / "v.nii") is Unusable.TOO_LARGE
    assert time.process_time() - started < 1


def set_value(tag: int, vr: str, text: bytes) -> Callable[[Path], None]:
    """Overwrite one element's value in the file's bytes, which pydicom would refuse to write."""

    def write(path: Path) -> None:
        data = path.read_bytes()
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
        at = data.index(head)
        (length,) = struct.unpack_from("<H", data, at + 6)
        padded = text + b" " * (len(text) % 2)
        path.write_bytes(data[: at + 6] + struct.pack("<H", len(padded)) + padded + data[at + 8 + length :])

    return write


def rewritten(case: CaseSource, write: Callable[[Path], None], *which: int) -> CaseSource:
    files = list(case.files)
    for index in which or range(len(files)):
        write(files[index].path)
        files[index] = SourceFile(files[index].path, digest_of_file(files[index].path))
    return replace(case, files=tuple(files))


@pytest.mark.parametrize(
    ("write", "which", "expected"),
    [
        (set_value(0x00200032, "DS", rb"NaN\NaN\NaN"), (), Unusable.GEOMETRY),
        (set_value(0x00200032, "DS", rb"0\0\nan"), (3,), Unusable.GEOMETRY),
        (set_value(0x00200032, "DS", rb"0\0\1e308"), (3,), Unusable.GEOMETRY),
        (set_value(0x00200032, "DS", rb"0\0\inf"), (3,), Unusable.GEOMETRY),
        (set_value(0x00200032, "DS", rb"0\0"), (3,), Unusable.GEOMETRY),
        (set_value(0x00200032, "DS", b""), (3,), Unusable.GEOMETRY),
        (set_value(0x00200037, "DS", rb"0\0\0\0\0\0"), (), Unusable.GEOMETRY),
        (set_value(0x00280030, "DS", rb"1e-300\1"), (), Unusable.GEOMETRY),
        (set_value(0x00281053, "DS", b"1e300"), (), Unusable.PIXEL_ATTRIBUTES),
        (set_value(0x00281052, "DS", b"nan"), (2,), Unusable.MISSING_RESCALE),
        (set_value(0x00280010, "US", b"\xff\xff"), (), Unusable.TOO_LARGE),
        (set_value(0x00280011, "US", b"\x00\x00"), (2,), Unusable.PIXEL_ATTRIBUTES),
        (set_value(0x00280010, "US", b"\x00\x10"), (), Unusable.PIXEL_DATA),
    ],
    ids=["nan", "one-nan", "1e308", "inf", "two", "none", "zero", "thin", "steep", "nan-intercept", "giant", "flat",
         "larger-than-its-pixels"],
)  # fmt: skip
def test_absurd_numbers_have_their_reason(
    tmp_path: Path,
    pool: DecoderPool,
    write: Callable[[Path], None],
    which: tuple[int, ...],
    expected: Unusable,
) -> None:
    case = rewritten(ct_case(tmp_path, 0), write, *which)
    assert made(case, pool, tmp_path / "v.nii") is expected


def test_a_claim_of_many_gigantic_slices_writes_nothing(tmp_path: Path, pool: DecoderPool) -> None:
    """Each plane is allowed by itself; together they would fill the disk."""
    case = ct_case(tmp_path, 0)
    for tag in (0x00280010, 0x00280011):
        case = rewritten(case, set_value(tag, "US", struct.pack("<H", 4096)))
    repeated = replace(case, files=case.files * 8)
    assert made(repeated, pool, tmp_path / "v.nii") is Unusable.TOO_LARGE


def test_a_file_that_says_one_thing_first_and_another_later_is_caught(
    tmp_path: Path, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read twice is compared: the header that placed the slice must be the header of the slice."""
    case = ct_case(tmp_path, 0)
    swapped = SourceFile(case.files[4].path)
    other = ct_case(tmp_path / "other", 1).files[7].path.read_bytes()
    read = DecoderPool.headers

    def headers(self: DecoderPool, files: tuple[SourceFile, ...]) -> Iterator[object]:
        yield from list(read(self, files))
        swapped.path.write_bytes(other)

    monkeypatch.setattr(DecoderPool, "headers", headers)
    files = (*case.files[:4], swapped, *case.files[5:])
    assert made(replace(case, files=files), pool, tmp_path / "v.nii") is Unusable.DIGEST


def deflated(dataset: Dataset, body: bytes | None = None) -> bytes:
    data = encoded(dataset)
    (length,) = struct.unpack_from("<I", data, 140)
    meta, plain = data[144 : 144 + length], data[144 + length :]
    wanted = DeflatedExplicitVRLittleEndian.encode()
    at = meta.index(b"\x02\x00\x10\x00UI")
    (size,) = struct.unpack_from("<H", meta, at + 6)
    meta = meta[: at + 6] + struct.pack("<H", len(wanted)) + wanted + meta[at + 8 + size :]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(plain if body is None else body) + packer.flush()
    return data[:140] + struct.pack("<I", len(meta)) + meta + packed


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(timeout_s=300)
    yield decoder
    decoder.close()


def test_deflated_files_are_read_and_bombs_are_not(decoder: Decoder) -> None:
    dataset = radiograph(picture())
    image = decoder.decode(deflated(dataset))
    assert image.pixels.tobytes() == decoder.decode(encoded(radiograph(picture()))).pixels.tobytes()
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    bomb = b"".join(packer.compress(zeros) for _ in range((MAX_INFLATED_BYTES >> 20) + 8)) + packer.flush()
    assert len(bomb) < 1 << 20
    head = deflated(dataset, b"")
    for data, expected in (
        (head[:-2] + bomb, Unusable.TOO_LARGE),
        (head[:-2] + bomb[:2000], Unusable.NOT_DICOM),
        (head[:-2] + b"\xff" * 99, Unusable.NOT_DICOM),
    ):
        with pytest.raises(UnusableImage) as caught:
            decoder.decode(data)
        assert caught.value.reason is expected


def test_sequences_without_end_are_not_followed_for_ever(tmp_path: Path, pool: DecoderPool) -> None:
    opened = struct.pack("<HH2sHI", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closed = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)

    def nest(path: Path) -> None:
        data = path.read_bytes()
        at = data.index(b"\x10\x00\x10\x00PN")
        path.write_bytes(data[:at] + opened * depth + closed * depth + data[at:])

    for depth in (30, 300, 50_000):
        case = rewritten(ct_case(tmp_path / str(depth), 0), nest, 3)
        result = made(case, pool, tmp_path / f"{depth}.nii")
        assert isinstance(result, Volume) or result in {Unusable.NOT_DICOM, Unusable.DECODER_CRASHED}
        (answer,) = pool.rekeyed([case.files[3]], bytes(32), "p1", 86_400)
        assert answer in {Unusable.NOT_DICOM, Unusable.DECODER_CRASHED}


def test_the_cohort_goes_on_without_them(tmp_path: Path) -> None:
    good = ct_case(tmp_path, GIVEN)
    nan = rewritten(
        replace(ct_case(tmp_path, 40), patient=good.patient), set_value(0x00200032, "DS", rb"NaN\NaN\NaN")
    )
    result = freeze(CT_DEFINITION, [good, nan], tmp_path / "out", KEY)
    assert isinstance(result, FrozenCohort)
    assert dict(result.left_out) == {Unusable.GEOMETRY: 1}
