"""Broken and hostile DICOM: refused with a code, or pseudonymised; never another error, never a word of the file."""

import random
import struct
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pseudonym_files import code_item, file_bytes, identified, item, pseudonymiser, sequence

from station.pseudonymisation import PseudonymisationError, PseudonymisationFault, Pseudonymiser
from station.pseudonymisation.reading import read_dicom


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Pseudonymiser:
    return pseudonymiser(tmp_path_factory.mktemp("key"))


def attempt(engine: Pseudonymiser, data: bytes) -> bytes | PseudonymisationError:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return engine.pseudonymise(read_dicom(data)).encode()
        except PseudonymisationError as error:
            return error


def well_filled(*, implicit: bool = False) -> bytes:
    return file_bytes(
        identified(
            ViewCodeSequence=sequence(code_item("PA"), item(ViewModifierCodeSequence=sequence(code_item("left")))),
            WindowCenter=[2048, 100], WindowWidth=["4096", "200"], PatientComments="Eva Testpatient",
            RequestAttributesSequence=sequence(item(RequestedProcedureDescription="Eva Testpatient")),
        ),
        implicit=implicit,
    )  # fmt: skip


def check(engine: Pseudonymiser, data: bytes) -> None:
    result = attempt(engine, data)
    if isinstance(result, PseudonymisationError):
        assert result.fault in PseudonymisationFault
        assert result.__cause__ is None
        assert result.__context__ is None
        assert "estpatient" not in str(result)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_cut_anywhere(engine: Pseudonymiser, implicit: bool) -> None:
    data = well_filled(implicit=implicit)
    for length in range(len(data)):
        check(engine, data[:length])


@pytest.mark.parametrize("seed", range(8))
def test_bytes_changed_anywhere(engine: Pseudonymiser, seed: int) -> None:
    chance = random.Random(seed)
    whole = well_filled(implicit=seed % 2 == 0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(132, len(data))] = chance.randrange(256)
        check(engine, bytes(data))


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_after_the_prefix(engine: Pseudonymiser, tail: bytes) -> None:
    check(engine, b"\0" * 128 + b"DICM" + tail)


def test_no_dicom_at_all(engine: Pseudonymiser) -> None:
    for data in (b"", b"%PDF-1.7 Testpatient", b"\0" * 132, b"DICM"):
        result = attempt(engine, data)
        assert isinstance(result, PseudonymisationError)
        assert result.fault is PseudonymisationFault.NOT_DICOM


@pytest.mark.parametrize("depth", [33, 200, 3000])
def test_deep_nesting(engine: Pseudonymiser, depth: int) -> None:
    """Items in items, written by hand: building them with pydicom would recurse here."""
    whole = file_bytes(identified())
    at = whole.index(b"\x28\x00\x02\x00")
    opened = (
        struct.pack("<HH2sHI", 0x0054, 0x0220, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ) * depth
    closed = (struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)) * depth
    result = attempt(engine, whole[:at] + opened + closed + whole[at:])
    assert isinstance(result, PseudonymisationError)
    assert result.fault in {PseudonymisationFault.NESTED_TOO_DEEP, PseudonymisationFault.UNREADABLE}


@pytest.mark.parametrize(
    "charset",
    ["ISO 2022 IR 87", "GB18030", "ISO_IR 192", "ISO 2022 IR 149", "NOT A CHARSET", ["", "ISO 2022 IR 87"]],
)
def test_odd_character_sets_leave_ascii_only(engine: Pseudonymiser, charset: str | list[str]) -> None:
    raw = identified()
    raw.SpecificCharacterSet = "ISO_IR 192"
    raw.PatientName = "山田^太郎"
    raw.Manufacturer = "Röntgenwerk 山田"
    raw.ViewCodeSequence = sequence(code_item("山田", "SCT"))
    data = file_bytes(raw)
    label = charset if isinstance(charset, str) else "\\".join(charset)
    old = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192"
    padded = label.encode() + (b" " if len(label) % 2 else b"")
    data = data.replace(old, b"\x08\x00\x05\x00CS" + struct.pack("<H", len(padded)) + padded)
    result = attempt(engine, data)
    assert isinstance(result, bytes)
    assert "山".encode() not in result
    assert b"ntgenwerk" not in result


def test_a_value_in_the_wrong_vr_does_not_pass_as_a_number(engine: Pseudonymiser) -> None:
    """KVP as LO, Rows as text in an unlisted CS: what is not of its VR is treated as text, and goes."""
    data = file_bytes(identified(KVP="125"))
    wrong = data.replace(b"\x18\x00\x60\x00DS\x04\x00125 ", b"\x18\x00\x60\x00LO\x04\x00Eva ")
    assert wrong != data
    result = attempt(engine, wrong)
    assert isinstance(result, bytes)
    assert b"Eva" not in result
    text = data.replace(b"CS\x06\x00CHEST ", b"CS\x06\x00Eva^T ")
    result = attempt(engine, text)
    assert isinstance(result, bytes)
    assert b"Eva" not in result
