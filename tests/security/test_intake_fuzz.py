"""Bad files: intake never falls, takes nothing half, quarantines with a reason, and says nothing of a file anywhere."""

import logging
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from intake_kit import CANARIES, fixed_intake, folder_of, image, live_instances, uid
from pseudonym_files import file_bytes, identified, item, sequence
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from station.handover import read_instance
from station.intake.intake import Intake
from station.intake.outcomes import IntakeReason
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.pseudonymisation.faults import PseudonymisationFault
from station.pseudonymisation.pixels.settings import PixelSettings

CASES = int(os.environ.get("PHT_FUZZ_CASES", "300"))
REASONS = {*PseudonymisationFault, *IntakeReason}
SETTINGS = IntakeSettings(
    max_file_bytes=8 << 20, worker_memory_mib=1536, file_timeout_s=30, pixels=PixelSettings(inspect="off")
)
WORDS = (*CANARIES, "1.2.826.0.1.3680043.8.498", "estpatient")


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return fixed_intake(tmp_path / "home")


def take(paths: IntakePaths, tmp_path: Path, files: list[bytes]) -> tuple[int, Counter[str]]:
    """Take files up; check what must hold whatever they are."""
    with Intake(paths, SETTINGS) as intake:
        report = intake.import_folder(folder_of(tmp_path, *files), "cxr")
        assert report.done == report.files == len(files)
        assert set(report.quarantined) <= REASONS
        held = Counter(path.parent.name for path in paths.quarantine.rglob("*") if path.is_file())
        assert dict(held) == intake.status().quarantined
        assert list(paths.spool.iterdir()) == []
    for record in live_instances(paths).values():
        data = read_instance(paths.handover, record)
        assert not [word for word in WORDS if word.encode() in data]
        dcmread(BytesIO(data)).walk(lambda _dataset, _element: None)
    return report.accepted, Counter(report.quarantined)


def nested(depth: int) -> bytes:
    """A file of sequences in sequences, made by hand: pydicom would not write it."""
    inner = b""
    for _ in range(depth):
        inner = (
            struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            + inner
            + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        )
    whole = image(1)
    at = whole.index(struct.pack("<HH", 0x0010, 0x0010) + b"PN")
    return whole[:at] + inner + whole[at:]


def deflated(size: int) -> bytes:
    """A file of a few kilobytes that inflates to `size`."""
    dataset = identified(SOPInstanceUID=uid(1))
    plain = file_bytes(dataset)
    meta_end = plain.index(struct.pack("<HH", 0x0008, 0x0016) + b"UI")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    written = file_bytes(dataset)
    start = len(written) - len(deflate(plain[meta_end:]))
    head = written[:start]
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = engine.compress(plain[meta_end:])
    body += engine.compress(struct.pack("<HH2sHI", 0x7FE1, 0x0010, b"OB", 0, size))
    chunk = bytes(1 << 20)
    for _ in range(size // len(chunk)):
        body += engine.compress(chunk)
    return head + body + engine.flush()


def deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -zlib.MAX_WBITS)
    made = engine.compress(data) + engine.flush()
    return made + b"\0" * (len(made) % 2)


def wrong_length(keyword: str, length: int) -> bytes:
    whole = bytearray(image(1))
    tag = tag_for_keyword(keyword)
    assert tag is not None
    at = whole.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    long_form = whole[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    if long_form:
        whole[at + 8 : at + 12] = struct.pack("<I", length)
    else:
        whole[at + 6 : at + 8] = struct.pack("<H", length & 0xFFFF)
    return bytes(whole)


def with_elements(**elements: object) -> bytes:
    return image(1, **elements)


def deep_item(depth: int) -> Dataset:
    made = item(CodeMeaning="Testpatient 3748755")
    for _ in range(depth):
        made = item(ReferencedImageSequence=sequence(made))
    return made


CRAFTED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "prefix only": lambda: bytes(128) + b"DICM",
    "text": lambda: b"Testpatient^Eva 3748755 Amstelrijk" * 100,
    "no meta": lambda: bytes(128) + b"DICM" + image(1)[300:],
    "zip": lambda: b"PK\x03\x04" + image(1),
    "nested 40": lambda: nested(40),
    "nested 1000": lambda: nested(1000),
    "nested 30000": lambda: nested(30_000),
    "deflated bomb": lambda: deflated(2 << 30),
    "pixels too long": lambda: wrong_length("PixelData", 0x7FFFFFF0),
    "pixels without end": lambda: wrong_length("PixelData", 0xFFFFFFFF),
    "name without end": lambda: wrong_length("PatientName", 0xFFFF),
    "uid of nothing": lambda: wrong_length("StudyInstanceUID", 0),
    "rows of one byte": lambda: wrong_length("Rows", 1),
    "huge value": lambda: with_elements(TextValue="Testpatient " * 200_000),
    "over the limit": lambda: image(1) + bytes(8 << 20),
    "iso 2022": lambda: with_elements(SpecificCharacterSet=["", "ISO 2022 IR 87"]).replace(
        b"Testpatient^Eva", b"\x1b$B;3ED\x1b(B^Testp"
    ),
    "gb18030": lambda: with_elements(SpecificCharacterSet="GB18030").replace(
        b"Testpatient^Eva", b"\xcd\xf5^\xd0\xa1\xb6\xab Testp "
    ),
    "no such character set": lambda: with_elements(SpecificCharacterSet="ISO_IR 192").replace(
        b"ISO_IR 192", b"ISO_IR 666"
    ),
    "escape out of nowhere": lambda: image(1).replace(b"Testpatient^Eva", b"\x1b$)C\xb1\xe8\x1b\x1b^patie"),
    "wrong vr": lambda: image(1).replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00SQ"),
    "no vr": lambda: image(1).replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00??"),
    "private sop class": lambda: with_elements(SOPClassUID="1.3.6.1.4.1.5962.301.9"),
    "uid that is none": lambda: with_elements(StudyInstanceUID="Testpatient.3748755"),
    "two studies": lambda: with_elements(StudyInstanceUID=[uid(1), uid(2)]),
    "two patients": lambda: with_elements(PatientID=["3748755", "9252896"]),
    "deep item": lambda: with_elements(ReferencedImageSequence=sequence(deep_item(20))),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_whole_or_in_quarantine(
    paths: IntakePaths,
    tmp_path: Path,
    name: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    sound = image(77, study=7000)
    accepted, quarantined = take(paths, tmp_path, [CRAFTED[name](), sound])
    assert accepted + sum(quarantined.values()) == 2
    # Whatever one file is, the one beside it is taken.
    assert accepted >= 1
    silent(caplog, capfd)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "not-dicom"), ("text", "not-dicom"), ("over the limit", "too-large"),
        ("private sop class", "sop-class-not-accepted"), ("uid that is none", "uid-invalid"),
        ("deflated bomb", "unreadable"), ("pixels too long", "unreadable"),
    ],
)  # fmt: skip
def test_a_crafted_file_has_its_own_reason(
    paths: IntakePaths, tmp_path: Path, name: str, reason: str
) -> None:
    assert take(paths, tmp_path, [CRAFTED[name]()]) == (0, Counter({reason: 1}))


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change a file in one of the ways in which files are wrong."""
    whole = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(whole) or 1)
        match chance.randrange(7):
            case 0:
                del whole[at:]
            case 1:
                whole[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                del whole[at : at + chance.randint(1, 40)]
            case 3:
                whole[at:at] = chance.randbytes(chance.randint(1, 40))
            case 4:
                whole[at : at + 4] = chance.choice(
                    [b"\xff\xff\xff\xff", bytes(4), b"\xff\x7f\0\0", b"\0\0\0\x80"]
                )
            case 5:
                other = chance.randrange(len(whole) or 1)
                whole[at:at] = whole[other : other + chance.randint(1, 200)]
            case _:
                whole[at : at + 2] = chance.choice([b"SQ", b"UN", b"OB", b"PN", b"UI", b"\xfe\xff", b"AT"])
    return bytes(whole)


def test_mutated_files_are_whole_or_in_quarantine(
    paths: IntakePaths,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    chance = random.Random(20261122)
    seeds = [
        image(1), file_bytes(identified(SOPInstanceUID=uid(2)), implicit=True),
        image(3, ReferencedImageSequence=sequence(deep_item(3))), nested(3), deflated(1 << 20),
    ]  # fmt: skip
    files = [mutated(chance.choice(seeds), chance) for _ in range(CASES)]
    accepted, quarantined = take(paths, tmp_path, files)
    # Both happen, or the fuzzer does nothing.
    assert accepted > 0
    assert sum(quarantined.values()) > CASES // 10
    assert quarantined["processing-timeout"] == 0
    silent(caplog, capfd)


def silent(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    said = caplog.text + "".join(capfd.readouterr())
    assert not [word for word in WORDS if word in said]
