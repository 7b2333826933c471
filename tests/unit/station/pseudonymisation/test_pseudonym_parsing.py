"""Our reading of well-formed files against pydicom's, and what is left to pydicom."""

import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from pseudonym_files import ENHANCED_CT, code_item, file_bytes, identified, item, reread, sequence
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
)

from station.pseudonymisation import PseudonymisationError, PseudonymisationFault, Pseudonymiser
from station.pseudonymisation.parsing import MAX_INFLATED_BYTES, OddFileError
from station.pseudonymisation.reading import _parsed, contain, read_dicom


def rich(**elements: object) -> Dataset:
    inner = item(CodeValue="1", CodingSchemeDesignator="DCM", CodeMeaning="x")
    deep = item(ViewModifierCodeSequence=sequence(inner, item(ViewModifierCodeSequence=sequence(inner))))
    dataset = identified(
        ViewCodeSequence=sequence(code_item("PA"), deep), RequestAttributesSequence=sequence(),
        WindowCenter=[40, 300], AccessionNumber="", SpecificCharacterSet="ISO_IR 100", OperatorsName="Müller^Zoë",
        **elements,
    )  # fmt: skip
    dataset.add_new(0x00190010, "LO", "ACME")
    dataset.add_new(0x00191001, "UN", b"abcd")
    dataset.add_new(0x00191002, "SQ", [inner])
    return dataset


def undefined_lengths(dataset: Dataset) -> Dataset:
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
            for entry in element.value:
                entry.is_undefined_length_sequence_item = True
    return dataset


def assert_same(ours: Dataset, theirs: Dataset) -> None:
    assert list(ours.keys()) == list(theirs.keys())
    for tag in theirs.keys():  # noqa: SIM118
        mine, their = ours[tag], theirs[tag]
        assert mine.VR == their.VR, tag
        if mine.VR == "SQ":
            assert len(mine.value) == len(their.value)
            for one, other in zip(mine.value, their.value, strict=True):
                assert_same(one, other)
        else:
            assert mine.value == their.value, tag


def assert_read_alike(data: bytes) -> None:
    ours, theirs = _parsed(data), dcmread(BytesIO(data))
    assert_same(ours, theirs)
    assert_same(ours.file_meta, theirs.file_meta)
    assert ours.original_encoding == theirs.original_encoding
    assert ours.original_character_set == theirs.original_character_set


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_well_formed_files_are_read_as_pydicom_reads_them(implicit: bool, undefined: bool) -> None:
    dataset = undefined_lengths(rich()) if undefined else rich()
    assert_read_alike(file_bytes(dataset, implicit=implicit))


def test_encapsulated_pixels() -> None:
    dataset = rich(PixelData=encapsulate([b"one fragment", b"\xfe\xff\xdd\xe0 not a delimiter"]))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    data = file_bytes(dataset)
    parsed = _parsed(data)
    # pydicom ends the pixels at the first bytes that look like a delimiter; the fragments' lengths know better.
    assert parsed.PixelData == encapsulate([b"one fragment", b"\xfe\xff\xdd\xe0 not a delimiter"])


def test_a_deflated_file() -> None:
    dataset = rich()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert_read_alike(file_bytes(dataset))


def test_a_deflated_bomb_is_refused_before_it_is_inflated() -> None:
    dataset = identified()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = file_bytes(dataset)
    group_length = struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = (
        b"".join(packer.compress(bytes(1 << 24)) for _ in range((MAX_INFLATED_BYTES >> 24) + 1))
        + packer.flush()
    )
    assert len(bomb) < 2 << 20
    with pytest.raises(PseudonymisationError) as caught:
        read_dicom(data[: 144 + group_length] + bomb)
    assert caught.value.fault is PseudonymisationFault.UNREADABLE


def test_what_is_not_just_as_the_standard_says_is_left_to_pydicom(tmp_path: Path) -> None:
    good = file_bytes(rich())
    odd = [
        good.replace(b"\x18\x00\x15\x00CS", b"\x18\x00\x15\x00Zz"),
        good + b"\0" * 4,
        good.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"),
    ]
    big = rich()
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    buffer = BytesIO()
    dcmwrite(buffer, big, enforce_file_format=True, little_endian=False, implicit_vr=False)
    odd.append(buffer.getvalue())
    for data in odd:
        with pytest.raises(OddFileError):
            _parsed(data)


def test_a_big_endian_file_goes_through(tmp_path: Path) -> None:
    from pseudonym_files import fixed_key

    dataset = rich(Rows=2, Columns=3)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True, little_endian=False, implicit_vr=False)
    made = reread(
        Pseudonymiser(fixed_key(tmp_path), "registry").pseudonymise(read_dicom(buffer.getvalue())).encode()
    )
    assert (made.Rows, made.Columns, made.WindowCenter) == (2, 3, [40, 300])
    assert made.ViewCodeSequence[0].CodeValue == "X1"


@pytest.mark.parametrize("depth", [39, 45])
def test_sequences_in_sequences_end(depth: int) -> None:
    dataset = identified()
    nested = item(CodeValue="1")
    for _ in range(depth):
        nested = item(ViewModifierCodeSequence=sequence(nested))
    dataset.ViewCodeSequence = sequence(nested)
    data = file_bytes(undefined_lengths(dataset))
    if depth < 40:
        assert "ViewCodeSequence" in read_dicom(data)
        return
    with pytest.raises(PseudonymisationError) as caught:
        read_dicom(data)
    assert caught.value.fault is PseudonymisationFault.NESTED_TOO_DEEP


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_are_read_as_pydicom_reads_them_or_not_at_all(seed: int) -> None:
    chance = random.Random(seed)
    whole = file_bytes(rich(SOPClassUID=ENHANCED_CT), implicit=seed % 2 == 0)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(144, len(data))] = chance.randrange(256)
        try:
            ours = contain(lambda data=data: _parsed(bytes(data)))
        except (OddFileError, PseudonymisationError):
            continue
        theirs = contain(lambda data=data: dcmread(BytesIO(bytes(data))))
        assert {int(tag) for tag in ours.keys()} == {int(tag) for tag in theirs.keys()}  # noqa: SIM118


def test_every_shared_file_is_read_as_pydicom_reads_it(shared_data: Path) -> None:
    files = [
        *sorted(shared_data.glob("cxr/*/dicom/*.dcm"))[::6],
        *sorted(shared_data.glob("ct/*/*.dcm"))[::4],
    ]
    assert len(files) >= 50
    for path in files:
        assert_read_alike(path.read_bytes())
