"""The canaries again, with each option chosen: only the attributes that the option retains may survive, and no others."""

import re
from pathlib import Path

import pytest
from pseudonym_files import DX, file_bytes, fixed_key, identified, reread, sequence
from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from test_pseudonym_canaries import PRIVATE, canary_element, leaks, output_of, tags

from station.pseudonymisation import DeidentificationOptions, Option, Pseudonymiser, options_of
from station.pseudonymisation.table import rows_by_tag

_DATES = {"DA", "TM", "DT"}
CHOICES = [(option,) for option in Option] + [(), tuple(Option)]


def retained_by(chosen: tuple[Option, ...]) -> set[int]:
    """The attributes that Table E.1-1 says K for: kept as they are. What it says C for is cleaned: no canary stays."""
    kept = set()
    for tag, row in rows_by_tag().items():
        columns = {
            Option.PATIENT_CHARACTERISTICS: row.options.retain_patient_characteristics,
            Option.DEVICE_IDENTITY: row.options.retain_device_identity,
        }
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
        if any(columns.get(option) == "K" for option in chosen) and vr not in {*_DATES, "SQ", "UN"}:
            kept.add(tag)
    return kept


def options(chosen: tuple[Option, ...]) -> DeidentificationOptions:
    extra = ["SOMEBODY ELSE:0019,xx01:LO"] if Option.SAFE_PRIVATE in chosen else []
    return options_of([option.value for option in chosen], extra)


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: "+".join(chosen) or "none")
@pytest.mark.parametrize("nested", [False, True])
def test_with_an_option_only_its_own_attributes_survive(
    tmp_path: Path, chosen: tuple[Option, ...], nested: bool
) -> None:
    engine = Pseudonymiser(fixed_key(tmp_path), "registry", options=options(chosen))
    survived = set()
    for tag in tags():
        if nested and tag >> 16 in {0x0000, 0x0002}:
            continue
        holder = Dataset() if nested else identified(SOPClassUID=DX)
        if tag in PRIVATE and tag & 0xFF00:
            holder.add_new((tag >> 16, 0x10), "LO", "CANARY CREATOR")
        holder.add(canary_element(tag))
        dataset = identified(ViewCodeSequence=sequence(holder)) if nested else holder
        if leaks(output_of(engine, dataset, tag), tag):
            survived.add(tag)
    expected = retained_by(chosen)
    assert {f"{tag:08x}" for tag in survived - expected} == set()
    # The option does something: nearly all it retains is there (a dummy stands for what cannot be told apart).
    assert len(survived & expected) >= 0.6 * len(expected)


@pytest.mark.parametrize("chosen", [(Option.SAFE_PRIVATE,), tuple(Option)])
def test_private_attributes_of_a_known_creator_survive_only_where_the_list_has_them(
    tmp_path: Path, chosen: tuple[Option, ...]
) -> None:
    """Every offset of a creator that the table knows, with text in it: the table's own are numbers, so none may stay."""
    engine = Pseudonymiser(fixed_key(tmp_path), "registry", options=options(chosen))
    dataset = identified()
    dataset.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    for offset in range(0x100):
        dataset.add_new(0x00191000 + offset, "LO", "Canary long")
    for implicit in (False, True):
        output = engine.pseudonymise(reread(file_bytes(dataset, implicit=implicit))).encode()
        assert not leaks(output, 0x00191000)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("GB18030", "王^小东"), ("GBK", "王^小东"), ("ISO_IR 192", "Müller^Zoë"), ("ISO_IR 100", "Müller^Zoë"),
        ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"), ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("\\ISO 2022 IR 58", "Wang=王^小东"),
    ],
)  # fmt: skip
def test_names_in_any_character_set_go_and_what_stays_is_ascii(
    tmp_path: Path, charset: str, name: str
) -> None:
    """As patient, and in descriptors, devices and characteristics that the options would retain."""
    sets = charset.split("\\")
    dataset = identified(
        SpecificCharacterSet=sets if len(sets) > 1 else charset, PatientName=name, PatientComments=name,
        StudyDescription=f"Thorax {name}", SeriesDescription=name, StationName=name[-3:], EthnicGroup=name[-3:],
        DeviceSerialNumber=name[-3:], Manufacturer=f"Philips {name}", AdditionalPatientHistory=name,
    )  # fmt: skip
    raw = file_bytes(dataset)
    codecs = convert_encodings(dataset.SpecificCharacterSet)
    parts = [part for part in re.split(r"[\^=]", name) if len(part) > 1]
    encoded = [encode_string(part, codecs) for part in parts] + [part.encode() for part in parts]
    assert any(part in raw for part in encoded), "the names stand in the file"
    engine = Pseudonymiser(fixed_key(tmp_path), "registry", options=options(tuple(Option)))
    output = engine.pseudonymise(reread(raw)).encode()
    assert not [part for part in encoded if part in output]
    header = output[: output.rindex(b"\xe0\x7f\x10\x00")]
    made = reread(output)
    texts = [
        element for element in made.iterall() if element.VR in {"PN", "LO", "SH", "ST", "LT", "UT", "CS"}
    ]
    assert all(str(element.value).isascii() for element in texts)
    assert b"\x1b" not in header
    assert "SpecificCharacterSet" not in made
