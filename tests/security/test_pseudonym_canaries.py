"""One canary per attribute of Table E.1-1, at top level and in items of unlisted sequences: none may survive."""

from pathlib import Path
from typing import Any

import pytest
from pseudonym_files import (
    CR,
    CT,
    DX,
    ENHANCED_CT,
    file_bytes,
    identified,
    item,
    pseudonymiser,
    reread,
    sequence,
)
from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from station.pseudonymisation import Pseudonymiser
from station.pseudonymisation.table import Action, Row, rows_by_tag

CANARIES: dict[str, Any] = {
    "AE": "CANARYAE", "AS": "077Y", "CS": "CANARY CS", "DA": "19870613", "DT": "19870613134657.123+0200",
    "TM": "134657.321", "LO": "Canary long", "LT": "Canary long text", "PN": "Canary^Person", "SH": "Canary sh",
    "ST": "Canary st", "UC": "Canary uc", "UR": "https://canary.example/1", "UT": "Canary ut",
    "UI": "1.2.826.0.1.3680043.2.77.1", "DS": "77.0625", "IS": "770625", "US": 40961,
    "OB": b"Canary bytes", "OW": b"Canary words", "UN": b"Canary unknown",
}  # fmt: skip
REPEATING = {
    0x50003000: "OW",
    0x50000103: "US",
    0x50102500: "LO",
    0x60003000: "OW",
    0x60024000: "LT",
    0x60001500: "LO",
}
PRIVATE = {0x00190010: "LO", 0x00191001: "LO", 0x00090010: "LO", 0x00091002: "UN"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Pseudonymiser:
    return pseudonymiser(tmp_path_factory.mktemp("key"))


def canary_element(tag: int) -> DataElement:
    registered = REPEATING.get(tag) or PRIVATE.get(tag)
    vr = registered or (dictionary_VR(tag) if dictionary_has_tag(tag) else "LO")
    vr = vr.split(" or ")[0]
    value: Any = CANARIES.get(vr)
    if vr == "SQ":
        value = sequence(
            item(
                CodeMeaning="Canary meaning", PatientComments="Canary in item", PatientName="Canary^Item",
                ReferencedSOPInstanceUID=CANARIES["UI"], ContentDate=CANARIES["DA"],
            )
        )  # fmt: skip
    return DataElement(tag, vr, value, validation_mode=config.IGNORE)


def leaks(output: bytes, tag: int) -> bool:
    """Whether the canary's bytes stand anywhere, or its number at its own tag on any level."""
    lowered = output.lower()
    if any(
        text in lowered
        for text in (
            b"canary",
            b"19870613",
            b"134657",
            b"1.2.826.0.1.3680043.2.77",
            b"077y",
            b"77.0625",
            b"770625",
        )
    ):
        return True
    return any(element.tag == tag and element.value == CANARIES["US"] for element in reread(output).iterall())


def tags() -> list[int]:
    return [*rows_by_tag(), *REPEATING, *PRIVATE]


def output_of(engine: Pseudonymiser, dataset: Dataset, tag: int) -> bytes:
    # Through a real file wherever such a file can be; groups 0000 and 0002 can stand in a data set in memory only.
    if tag >> 16 not in {0x0000, 0x0002}:
        dataset = reread(file_bytes(dataset))
    return engine.pseudonymise(dataset).encode()


@pytest.mark.parametrize(
    ("sop_class", "implicit"), [(DX, False), (CR, True), (CT, True), (ENHANCED_CT, False)]
)
def test_no_canary_at_top_level_survives(engine: Pseudonymiser, sop_class: str, implicit: bool) -> None:
    leaked = []
    for tag in tags():
        dataset = identified(SOPClassUID=sop_class)
        kept = {0x0008_0018, 0x0020_000D, 0x0020_000E}
        if tag in PRIVATE and tag & 0xFF00:
            dataset.add_new((tag >> 16, 0x10), "LO", "CANARY CREATOR")
        dataset.add(canary_element(tag))
        if implicit and tag >> 16 not in {0x0000, 0x0002}:
            dataset = reread(file_bytes(dataset, implicit=True))
        output = output_of(engine, dataset, tag)
        if leaks(output, tag):
            leaked.append(f"{tag:08x}")
        assert all(key in reread(output) for key in kept)
    assert leaked == []
    assert len(tags()) >= 650


def test_the_search_finds_every_canary_that_is_not_removed() -> None:
    missed = []
    for tag in tags():
        if tag >> 16 in {0x0000, 0x0002}:
            continue
        dataset = identified()
        dataset.add(canary_element(tag))
        if not leaks(file_bytes(dataset), tag):
            missed.append(f"{tag:08x}")
    assert missed == []


@pytest.mark.parametrize("depth", [1, 3])
def test_no_canary_in_items_of_unlisted_sequences_survives(engine: Pseudonymiser, depth: int) -> None:
    leaked = []
    for tag in tags():
        if tag >> 16 in {0x0000, 0x0002}:
            continue
        inner = Dataset()
        if tag in PRIVATE and tag & 0xFF00:
            inner.add_new((tag >> 16, 0x10), "LO", "CANARY CREATOR")
        inner.add(canary_element(tag))
        for _ in range(depth - 1):
            inner = item(ViewModifierCodeSequence=sequence(inner))
        dataset = identified(ViewCodeSequence=sequence(inner))
        if leaks(output_of(engine, dataset, tag), tag):
            leaked.append(f"{tag:08x}")
    assert leaked == []


def test_no_canary_in_the_file_meta_information_survives(engine: Pseudonymiser) -> None:
    dataset = identified()
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = "CANARYAE"
    meta.SendingApplicationEntityTitle = "CANARYAE"
    meta.ReceivingApplicationEntityTitle = "CANARYAE"
    meta.PrivateInformationCreatorUID = CANARIES["UI"]
    meta.PrivateInformation = b"Canary private information"
    meta.ImplementationVersionName = "CANARYVERSION"
    data = file_bytes(dataset)
    data = b"Canary preamble".ljust(128, b"\0") + data[128:]
    output = engine.pseudonymise(reread(data)).encode()
    assert output[:128] == b"\0" * 128
    assert not leaks(output, 0)
    made = reread(output)
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID


def test_every_row_of_the_table_has_an_action_that_is_carried_out() -> None:
    assert {row.basic for row in rows_by_tag().values()} == set(Action)
    assert all(isinstance(row, Row) for row in rows_by_tag().values())


UNLISTED_TEXT = (
    "LO",
    "SH",
    "ST",
    "LT",
    "UT",
    "UC",
    "UR",
    "PN",
    "AE",
    "DA",
    "DT",
    "TM",
    "UI",
    "UN",
    "OB",
    "OW",
    "AS",
)


@pytest.mark.parametrize("nested", [False, True])
def test_no_canary_in_an_unlisted_attribute_of_a_telling_vr_survives(
    engine: Pseudonymiser, tmp_path: Path, nested: bool
) -> None:
    from pydicom._dicom_dict import DicomDictionary

    from station.pseudonymisation.table import load_kept_text

    kept = {int(tag, 16) for tag in (*load_kept_text().text, *load_kept_text().binary)}
    leaked = []
    for tag, entry in DicomDictionary.items():
        vr = entry[0].split(" or ")[0]
        if vr not in UNLISTED_TEXT or tag in rows_by_tag() or tag in kept or tag >> 16 < 8 or vr == "AS":
            continue
        dataset = identified()
        holder = dataset
        if nested:
            holder = Dataset()
        holder.add(canary_element(tag))
        if nested:
            dataset.ViewCodeSequence = sequence(holder)
        if tag in {0x00080016, 0x0020000D, 0x0020000E, 0x00080018} and not nested:
            continue
        if leaks(output_of(engine, dataset, tag), tag):
            leaked.append(f"{tag:08x} {vr}")
    assert leaked == []
