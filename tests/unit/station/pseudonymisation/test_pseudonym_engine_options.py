"""What each option lets stay, on instances; what it must not let stay is in tests/security."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from pseudonym_files import DX, code_item, file_bytes, fixed_key, identified, item, make_key, reread, sequence
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from station.pseudonymisation import DeidentificationOptions, Option, Pseudonymiser, options_of
from station.pseudonymisation.pixels import PixelFinding

BASIC = DeidentificationOptions(chosen=())


@dataclass(frozen=True)
class Made:
    engine: Pseudonymiser
    dataset: Dataset


def through(
    folder: Path, options: DeidentificationOptions, implicit: bool = False, **elements: object
) -> Dataset:
    engine = Pseudonymiser(fixed_key(folder), "registry", options=options)
    return reread(engine.pseudonymise(reread(file_bytes(identified(**elements), implicit=implicit))).encode())


def codes(dataset: Dataset) -> list[str]:
    return [str(entry.CodeValue) for entry in dataset.DeidentificationMethodCodeSequence]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("option", "elements"),
    [
        (
            Option.PATIENT_CHARACTERISTICS,
            {"PatientSex": "F", "PatientAge": "045Y", "PatientSize": "1.75", "PatientWeight": "79",
             "SmokingStatus": "NO", "PregnancyStatus": 1, "EthnicGroup": "Frisian"},
        ),
        (
            Option.DEVICE_IDENTITY,
            {"StationName": "CT02", "DeviceSerialNumber": "60064", "DetectorID": "D-1", "GantryID": "G1",
             "DeviceUID": "1.2.826.0.1.3680043.8.498.7"},
        ),
        (Option.CLEAN_DESCRIPTORS, {"StudyDescription": "CT Thorax met contrastmiddel", "SeriesDescription": "Lung 1.5mm"}),
    ],
)  # fmt: skip
def test_an_option_retains_its_attributes_and_says_so(
    tmp_path: Path, option: Option, elements: dict[str, object], implicit: bool
) -> None:
    without = through(tmp_path, BASIC, implicit, **elements)
    with_it = through(tmp_path, DeidentificationOptions(chosen=(option,)), implicit, **elements)
    for keyword, value in elements.items():
        assert str(without.get(keyword) or "") != str(value), keyword
        assert str(with_it[keyword].value) == str(value), keyword
    assert codes(without) == ["113100"]
    assert len(codes(with_it)) == 2


def test_without_modified_dates_no_date_stays_and_the_code_is_not_claimed(tmp_path: Path) -> None:
    dataset = through(tmp_path, BASIC, SeriesDate="20200917", ContentDate="20200917", ContentTime="122137")
    assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
    assert codes(dataset) == ["113100"]
    assert dataset.StudyDate == ""
    assert "SeriesDate" not in dataset
    assert all(
        element.value in ("", None, "19000101", "000000", "19000101000000")
        for element in dataset.iterall()
        if element.VR in {"DA", "TM", "DT"}
    )
    assert "removed" in dataset.DeidentificationMethod[1]


def test_the_method_says_the_recipe_and_the_hospitals_own_elements(tmp_path: Path) -> None:
    options = options_of(["safe-private"], ["ACME:0019,xx01:DS"])
    dataset = through(tmp_path, options)
    assert "recipe 2" in dataset.DeidentificationMethod[0]
    assert "1 of the hospital" in dataset.DeidentificationMethod[3]
    assert all(len(value) <= 64 for value in dataset.DeidentificationMethod)


def test_the_oldest_are_one(tmp_path: Path) -> None:
    options = DeidentificationOptions(chosen=(Option.PATIENT_CHARACTERISTICS,))
    assert through(tmp_path, options, PatientAge="101Y").PatientAge == "090Y"
    assert through(tmp_path, options, PatientAge="089Y").PatientAge == "089Y"
    assert through(tmp_path, options, PatientAge="101D").PatientAge == "101D"


def test_a_device_that_is_named_after_the_patient_is_not_kept(tmp_path: Path) -> None:
    options = DeidentificationOptions(chosen=(Option.DEVICE_IDENTITY,))
    assert not through(tmp_path, options, StationName="Testpatient").get("StationName")


def test_the_date_of_calibration_moves_with_the_patient(tmp_path: Path) -> None:
    """It is near the study's date: kept as it is, it would tell how far that was moved."""
    both = DeidentificationOptions(chosen=(Option.DEVICE_IDENTITY, Option.MODIFIED_DATES))
    dataset = through(tmp_path, both, DateOfLastCalibration="20200917", TimeOfLastCalibration="122136")
    assert dataset.DateOfLastCalibration == dataset.StudyDate != "20200917"
    alone = DeidentificationOptions(chosen=(Option.DEVICE_IDENTITY,))
    assert "DateOfLastCalibration" not in through(tmp_path, alone, DateOfLastCalibration="20200917")


def test_sequences_of_an_option_are_cleaned_item_by_item(tmp_path: Path) -> None:
    options = DeidentificationOptions(chosen=(Option.CLEAN_DESCRIPTORS,))
    asked = item(
        RequestedProcedureDescription="Thorax voor mw. Testpatient", RequestedProcedureID="A20086678",
        ReasonForRequestedProcedureCodeSequence=sequence(code_item("Nodule", "SCT")),
    )  # fmt: skip
    dataset = through(tmp_path, options, RequestAttributesSequence=sequence(asked))
    found = dataset.RequestAttributesSequence[0]
    assert found.RequestedProcedureDescription == "Thorax voor"
    assert "RequestedProcedureID" not in found
    assert found.ReasonForRequestedProcedureCodeSequence[0].CodeMeaning == "Nodule"


def with_private(**elements: object) -> Dataset:
    dataset = identified(**elements)
    dataset.add_new(0x00190010, "LO", "ACME CT")
    dataset.add_new(0x00190011, "LO", "SIEMENS MR HEADER ")
    dataset.add_new(0x0019110C, "IS", "1000")
    dataset.add_new(0x0019110D, "CS", "DIRECTIONAL")
    dataset.add_new(0x0019110E, "FD", [1.0, 0.0, 0.0])
    dataset.add_new(0x00191127, "LO", "Testpatient^Eva")
    dataset.add_new(0x00191001, "LO", "Eva Testpatient")
    dataset.add_new(0x0019100C, "IS", "77")
    dataset.add_new(0x0019120C, "IS", "88")
    return dataset


@pytest.mark.parametrize("implicit", [False, True])
def test_safe_private_attributes_stay_with_their_creator(tmp_path: Path, implicit: bool) -> None:
    engine = Pseudonymiser(fixed_key(tmp_path), "registry", options=options_of(["safe-private"]))
    dataset = reread(engine.pseudonymise(reread(file_bytes(with_private(), implicit=implicit))).encode())
    kept = {int(element.tag): element.value for element in dataset if element.tag.is_private}
    assert kept[0x00190011] == "SIEMENS MR HEADER"
    assert kept[0x0019110C] == 1000
    assert kept[0x0019110D] == "DIRECTIONAL"
    assert kept[0x0019110E] == [1.0, 0.0, 0.0]
    # Another creator's, one in a VR that is not the table's, one whose creator is missing.
    assert set(kept) == {0x00190011, 0x0019110C, 0x0019110D, 0x0019110E}
    plain = Pseudonymiser(fixed_key(tmp_path), "registry").pseudonymise(with_private()).dataset
    assert not [tag for tag in plain.keys() if tag.is_private]  # noqa: SIM118


def test_the_hospitals_own_safe_elements_are_checked_by_their_vr(tmp_path: Path) -> None:
    options = options_of(
        ["safe-private", "modified-dates"],
        [
            "ACME CT:0019,xx01:LO",
            "ACME CT:0019,xx0c:DS",
            "ACME CT:0019,xx20:DA",
            "ACME CT:0019,xx21:UI",
            "ACME CT:0019,xx22:OB",
        ],
    )
    engine = Pseudonymiser(fixed_key(tmp_path), "registry", options=options)
    raw = with_private()
    raw.add_new(0x00191020, "DA", "20200917")
    raw.add_new(0x00191021, "UI", "1.2.826.0.1.3680043.8.498.9")
    raw.add_new(0x00191022, "OB", b"Testpatient!")
    dataset = engine.pseudonymise(raw).dataset
    assert (0x0019, 0x1001) not in dataset, "names the patient"
    assert (0x0019, 0x100C) not in dataset, "IS is not DS"
    assert (0x0019, 0x1022) not in dataset, "bytes cannot be judged"
    assert dataset[0x00191020].value == dataset.StudyDate != "20200917"
    assert dataset[0x00191021].value == engine.remap_uid("1.2.826.0.1.3680043.8.498.9")


def test_private_blocks_of_items_are_their_own(tmp_path: Path) -> None:
    """The creator of the data set says nothing of a block in an item (PS3.5 7.8.1)."""
    inner = Dataset()
    inner.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    inner.add_new(0x0019100C, "IS", "500")
    inner.add_new(0x0019110C, "IS", "600")
    engine = Pseudonymiser(fixed_key(tmp_path), "registry", options=options_of(["safe-private"]))
    raw = with_private(ViewCodeSequence=sequence(inner))
    found = reread(engine.pseudonymise(reread(file_bytes(raw))).encode()).ViewCodeSequence[0]
    assert [int(element.tag) for element in found] == [0x00190010, 0x0019100C]


def finding(dataset: Dataset, status: str, *, clean: bool, face: bool | None) -> PixelFinding:
    return PixelFinding(status, clean, face, 0, dataset)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "clean", "face", "claimed", "burned_in", "features"),
    [
        ("not-inspected", True, None, [], None, None),
        ("not-inspected", False, True, [], None, "YES"),
        ("not-inspected", False, False, [], None, "NO"),
        ("inspected", True, None, ["113101"], "NO", None),
        ("inspected", True, False, ["113101"], "NO", "NO"),
        ("inspected", False, False, [], None, "NO"),
        ("masked", True, True, ["113101"], "NO", "YES"),
        ("masked", False, None, [], None, None),
    ],
)
def test_of_pixels_is_claimed_what_their_inspection_found(
    tmp_path: Path, status: str, clean: bool, face: bool | None, claimed: list[str],
    burned_in: str | None, features: str | None,
) -> None:  # fmt: skip
    dataset = identified()
    engine = Pseudonymiser(make_key(tmp_path), "registry")
    made = reread(engine.pseudonymise(dataset, finding(dataset, status, clean=clean, face=face)).encode())
    assert [code for code in codes(made) if code in {"113101", "113102"}] == claimed
    assert made.get("BurnedInAnnotation") == burned_in
    assert made.get("RecognizableVisualFeatures") == features


@pytest.mark.parametrize("implicit", [False, True])
def test_masked_pixels_take_the_place_of_the_files_own(tmp_path: Path, implicit: bool) -> None:
    """As the inspector hands them over: the elements as read, the pixels and the transfer syntax new."""
    source = reread(
        file_bytes(identified(ViewCodeSequence=sequence(code_item("PA", "SCT"))), implicit=implicit)
    )
    copy = Dataset()
    copy.update({tag: source.get_item(tag) for tag in source.keys()})  # noqa: SIM118
    copy.set_original_encoding(*source.original_encoding)
    copy.file_meta = source.file_meta
    copy.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    copy[0x7FE00010] = DataElement(0x7FE00010, "OW", bytes(12))
    engine = Pseudonymiser(make_key(tmp_path), "registry")
    made = reread(engine.pseudonymise(source, finding(copy, "masked", clean=True, face=None)).encode())
    assert made.PixelData == bytes(12)
    assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert made.SOPClassUID == DX
    assert made.Rows == 2
    assert made.ViewCodeSequence[0].CodeMeaning == "PA"
    assert codes(made) == ["113100", "113101", "113107"]


def test_a_merged_patient_has_one_pseudonym_and_one_shift(tmp_path: Path) -> None:
    def known_by(issuer: str, patient_id: str) -> tuple[str, str]:
        return (issuer, "1") if patient_id == "3748755" else (issuer, patient_id)

    engine = Pseudonymiser(make_key(tmp_path), "registry", aliases=known_by)
    old = engine.pseudonymise(identified())
    new = engine.pseudonymise(identified(PatientID="1"))
    assert old.patient == new.patient == engine.pseudonym("Amstelrijk", "3748755")
    assert old.dataset.StudyDate == new.dataset.StudyDate
    assert engine.patient_identity(identified()) == ("Amstelrijk", "3748755")


def test_functional_groups_follow_the_types_of_their_macros(tmp_path: Path) -> None:
    """Derivation Image Sequence is type 2 in its macro: it stays, empty; its source images by their own types."""
    group = item(
        DerivationImageSequence=sequence(
            item(
                DerivationCodeSequence=sequence(code_item("Multiplication", "DCM")),
                SourceImageSequence=sequence(
                    item(ReferencedSOPClassUID=DX, ReferencedSOPInstanceUID="1.2.826.0.1.3680043.8.498.5")
                ),
            )
        ),
        ReferencedImageSequence=sequence(item(ReferencedSOPInstanceUID="1.2.826.0.1.3680043.8.498.6")),
        FrameContentSequence=sequence(item(FrameAcquisitionDateTime="20200917122136", FrameComments="Eva")),
    )
    dataset = through(
        tmp_path,
        DeidentificationOptions(),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        PerFrameFunctionalGroupsSequence=sequence(group),
    )
    found = dataset.PerFrameFunctionalGroupsSequence[0]
    assert found.ReferencedImageSequence == []
    assert found.DerivationImageSequence[0].SourceImageSequence == []
    assert found.DerivationImageSequence[0].DerivationCodeSequence[0].CodeMeaning == "Multiplication"
    assert found.FrameContentSequence[0].FrameAcquisitionDateTime[:8] == dataset.StudyDate
    assert "FrameComments" not in found.FrameContentSequence[0]
