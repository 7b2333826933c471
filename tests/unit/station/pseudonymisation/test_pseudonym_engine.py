from pathlib import Path

import pytest
from pseudonym_files import (
    DX,
    code_item,
    file_bytes,
    fixed_key,
    identified,
    item,
    make_key,
    pseudonymiser,
    reread,
    sequence,
)
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from station.pseudonymisation import (
    PseudonymisationError,
    PseudonymisationFault,
    PseudonymisedInstance,
    Pseudonymiser,
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Pseudonymiser:
    return pseudonymiser(tmp_path_factory.mktemp("key"))


def through(engine: Pseudonymiser, dataset: Dataset) -> Dataset:
    return reread(engine.pseudonymise(reread(file_bytes(dataset))).encode())


def codes(dataset: Dataset) -> list[str]:
    return [str(entry.CodeValue) for entry in dataset.DeidentificationMethodCodeSequence]


def test_the_result_names_what_the_file_holds(engine: Pseudonymiser) -> None:
    made = engine.pseudonymise(identified())
    dataset = reread(made.encode())
    assert dataset.PatientID == dataset.PatientName == made.patient
    assert dataset.StudyInstanceUID == made.study_uid
    assert dataset.SeriesInstanceUID == made.series_uid
    assert dataset.SOPInstanceUID == made.sop_instance_uid
    assert made.patient == engine.pseudonym("Amstelrijk", "3748755")
    assert made.study_uid == engine.remap_uid("1.2.826.0.1.3680043.8.498.111.2")


def test_the_deidentification_attributes_are_written(engine: Pseudonymiser) -> None:
    dataset = through(engine, identified())
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.LongitudinalTemporalInformationModified == "MODIFIED"
    assert codes(dataset) == ["113100", "113107"]
    assert {str(entry.CodingSchemeDesignator) for entry in dataset.DeidentificationMethodCodeSequence} == {
        "DCM"
    }
    method = list(dataset.DeidentificationMethod)
    assert "2026c" in method[0]
    assert "1-365 d" in method[1]
    assert all(len(value) <= 64 for value in method)
    assert "113101" not in codes(dataset)


def test_codes_of_an_earlier_cleaning_stand_before_ours_and_claims_of_retention_go(
    engine: Pseudonymiser,
) -> None:
    def stated(value: str, scheme: str = "DCM") -> Dataset:
        return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="Testpatient")

    earlier = sequence(
        stated("113101"), stated("113106"), stated("113100"), stated("113105", "99X"), stated("113101")
    )
    dataset = through(
        engine,
        identified(DeidentificationMethodCodeSequence=earlier, DeidentificationMethod="by Dr Testpatient"),
    )
    assert codes(dataset) == ["113101", "113100", "113107"]
    assert "Testpatient" not in str(dataset)


def test_file_meta_information_is_made_anew(engine: Pseudonymiser) -> None:
    raw = identified()
    raw.file_meta.SourceApplicationEntityTitle = "PACS_AMSTELRIJK"
    output = engine.pseudonymise(raw).encode()
    assert output[:128] == b"\0" * 128
    meta = reread(output).file_meta
    assert meta.MediaStorageSOPInstanceUID == reread(output).SOPInstanceUID
    assert meta.MediaStorageSOPClassUID == DX
    assert "SourceApplicationEntityTitle" not in meta
    assert meta.ImplementationVersionName == "PHT_RADIOLOGY_1"


def test_the_same_input_and_key_give_the_same_bytes(tmp_path: Path) -> None:
    data = file_bytes(identified())
    one = Pseudonymiser(fixed_key(tmp_path), "registry").pseudonymise(reread(data)).encode()
    two = Pseudonymiser(fixed_key(tmp_path), "registry").pseudonymise(reread(data)).encode()
    assert one == two


def test_the_input_is_not_changed(engine: Pseudonymiser) -> None:
    raw = reread(file_bytes(identified(ViewCodeSequence=sequence(code_item("PA")))))
    before = file_bytes(raw)
    engine.pseudonymise(raw)
    assert file_bytes(raw) == before


def test_projects_do_not_link(tmp_path: Path) -> None:
    # Not a random key: one in 365 of those moves both projects by as many days.
    key = fixed_key(tmp_path)
    one = Pseudonymiser(key, "one").pseudonymise(identified())
    two = Pseudonymiser(key, "two").pseudonymise(identified())
    assert one.patient != two.patient
    assert one.study_uid != two.study_uid
    assert one.dataset.StudyDate != two.dataset.StudyDate


@pytest.mark.parametrize("implicit", [False, True])
def test_native_pixels_pass_byte_for_byte(engine: Pseudonymiser, implicit: bool) -> None:
    raw = reread(file_bytes(identified(), implicit=implicit))
    assert reread(engine.pseudonymise(raw).encode()).PixelData == bytes(range(12))


def test_compressed_pixels_pass_byte_for_byte_and_undecoded(engine: Pseudonymiser) -> None:
    raw = identified(PixelData=encapsulate([b"not a JPEG 2000 codestream at all"]))
    raw.file_meta.TransferSyntaxUID = JPEG2000Lossless
    raw["PixelData"].is_undefined_length = True
    raw["PixelData"].VR = "OB"
    data = file_bytes(raw)
    output = engine.pseudonymise(reread(data)).encode()
    assert output.endswith(data[data.rindex(b"\xe0\x7f\x10\x00") :])


def test_items_of_kept_sequences_are_cleaned_at_every_level(engine: Pseudonymiser) -> None:
    inner = item(
        CodeValue="R-10206", CodingSchemeDesignator="SRT", CodeMeaning="antero-posterior",
        PatientName="Testpatient^Eva", ReferencedSOPInstanceUID="1.2.826.0.1.3680043.8.498.9", ContentDate="20200917",
    )  # fmt: skip
    dataset = through(
        engine, identified(ViewCodeSequence=sequence(item(ViewModifierCodeSequence=sequence(inner))))
    )
    found = dataset.ViewCodeSequence[0].ViewModifierCodeSequence[0]
    assert found.CodeMeaning == "antero-posterior"
    assert found.ReferencedSOPInstanceUID == engine.remap_uid("1.2.826.0.1.3680043.8.498.9")
    assert found.ContentDate != "20200917"
    assert "Testpatient" not in str(dataset)


def test_the_meaning_of_a_local_code_is_not_trusted(engine: Pseudonymiser) -> None:
    dataset = through(engine, identified(ProcedureCodeSequence=sequence(code_item("X-thorax mevrouw T"))))
    assert dataset.ProcedureCodeSequence[0].CodeValue == "X1"
    assert dataset.ProcedureCodeSequence[0].CodeMeaning == "REMOVED"


@pytest.mark.parametrize(
    "text", ["Philips Testpatient", "serial 3748755", "SN3748755-2", "Röntgen", "x" * 65]
)
def test_kept_text_that_names_the_patient_or_is_odd_goes(engine: Pseudonymiser, text: str) -> None:
    raw = identified(ManufacturerModelName="Ysio Max", SpecificCharacterSet="ISO_IR 192")
    raw["Manufacturer"]._value = text
    dataset = reread(engine.pseudonymise(raw).encode())
    assert not dataset.get("Manufacturer")
    assert dataset.ManufacturerModelName == "Ysio Max"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ScanOptions", "eva^T"),
        ("KVP", "Eva"),
        ("InstanceNumber", "12 Eva"),
        ("BodyPartExamined", "CHEST OF EVA TESTPATIENT"),
    ],
)
def test_codes_and_numbers_must_have_their_form(engine: Pseudonymiser, keyword: str, value: str) -> None:
    raw = identified(**{keyword: "1"})
    raw[keyword]._value = value
    dataset = reread(engine.pseudonymise(raw).encode())
    assert not dataset.get(keyword)


def test_no_character_set_is_left_to_read(engine: Pseudonymiser) -> None:
    output = engine.pseudonymise(
        reread(file_bytes(identified(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Zoë")))
    ).encode()
    assert "SpecificCharacterSet" not in reread(output)
    assert b"ller" not in output


def test_the_patient_key_is_issuer_and_id(tmp_path: Path) -> None:
    engine = Pseudonymiser(make_key(tmp_path), "registry", default_issuer="Amstelrijk")
    named = engine.pseudonymise(identified())
    unnamed = engine.pseudonymise(identified(IssuerOfPatientID=None))
    other = engine.pseudonymise(identified(IssuerOfPatientID="De Wadden"))
    assert named.patient == unnamed.patient
    assert named.patient != other.patient


@pytest.mark.parametrize(
    ("elements", "fault"),
    [
        ({"PatientID": None}, PseudonymisationFault.PATIENT_ID_MISSING),
        ({"PatientID": "  "}, PseudonymisationFault.PATIENT_ID_MISSING),
        ({"StudyInstanceUID": None}, PseudonymisationFault.UID_MISSING),
        ({"SeriesInstanceUID": ""}, PseudonymisationFault.UID_MISSING),
        ({"SOPInstanceUID": ["1.2.3", "1.2.4"]}, PseudonymisationFault.UID_MISSING),
        ({"SOPClassUID": "1.2.3.4.5"}, PseudonymisationFault.SOP_CLASS_UNKNOWN),
    ],
)
def test_what_is_refused(
    engine: Pseudonymiser, elements: dict[str, object], fault: PseudonymisationFault
) -> None:
    with pytest.raises(PseudonymisationError) as caught:
        engine.pseudonymise(identified(**elements))
    assert caught.value.fault is fault


def test_a_uid_that_is_text_is_refused(engine: Pseudonymiser) -> None:
    raw = identified()
    raw["StudyInstanceUID"]._value = "Testpatient"
    with pytest.raises(PseudonymisationError) as caught:
        engine.pseudonymise(raw)
    assert caught.value.fault is PseudonymisationFault.UID_INVALID


def test_an_unknown_transfer_syntax_is_refused(engine: Pseudonymiser) -> None:
    raw = identified()
    raw.file_meta.TransferSyntaxUID = "1.2.3.4"
    with pytest.raises(PseudonymisationError) as caught:
        engine.pseudonymise(raw)
    assert caught.value.fault is PseudonymisationFault.TRANSFER_SYNTAX_UNKNOWN


def test_nobody_else_makes_a_pseudonymised_instance() -> None:
    with pytest.raises(TypeError, match="engine only"):
        PseudonymisedInstance(Dataset(), "P", "2.25.1", "2.25.2", "2.25.3", object())
