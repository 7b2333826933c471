"""Device rules, faces, allowed words and boxes: what is decided without looking at pixels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from station.pseudonymisation.pixels.allowed import is_allowed, shipped_words
from station.pseudonymisation.pixels.boxes import Box, joined
from station.pseudonymisation.pixels.device_rules import Verdict, load_device_rules, verdict_on
from station.pseudonymisation.pixels.faces import recognizable_face

boxes = st.builds(
    lambda top, left, height, width: Box(top, left, top + height, left + width),
    st.integers(0, 60), st.integers(0, 60), st.integers(1, 20), st.integers(1, 20),
)  # fmt: skip
SLICE: dict[str, object] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Modality": "CT",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
}


def header(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (SLICE, Verdict.TRUST),
        (SLICE | {"BurnedInAnnotation": "NO"}, Verdict.TRUST),
        (SLICE | {"BurnedInAnnotation": "YES"}, Verdict.INSPECT),
        (SLICE | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Verdict.INSPECT),
        (SLICE | {"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]}, Verdict.INSPECT),
        (SLICE | {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1"}, Verdict.INSPECT),
        (SLICE | {"SeriesDescription": "Patient_Protocol"}, Verdict.QUARANTINE),
        (SLICE | {"SeriesDescription": "Dose Report"}, Verdict.QUARANTINE),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY"]}, Verdict.INSPECT),
        ({"Modality": "CT"}, Verdict.INSPECT),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, Verdict.QUARANTINE),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, Verdict.QUARANTINE),
        ({"Modality": "DX", "BurnedInAnnotation": "NO"}, Verdict.INSPECT),
        ({"Modality": "CR"}, Verdict.INSPECT),
        ({"Modality": "OT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Verdict.QUARANTINE),
        ({"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Verdict.QUARANTINE),
        ({"Modality": "US"}, Verdict.QUARANTINE),
        ({}, Verdict.QUARANTINE),
    ],
)  # fmt: skip
def test_device_rules(values: dict[str, object], verdict: Verdict) -> None:
    assert verdict_on(header(**values)) is verdict


def test_the_last_rule_catches_what_no_other_knows() -> None:
    assert load_device_rules().rules[-1].then is Verdict.QUARANTINE


@pytest.mark.parametrize(
    ("values", "face"),
    [
        ({"Modality": "CT", "BodyPartExamined": "HEAD", "SliceThickness": "1"}, True),
        ({"Modality": "CT", "BodyPartExamined": "SINUS", "SliceThickness": "0.6"}, True),
        ({"Modality": "CT", "BodyPartExamined": "HEAD", "SliceThickness": "5"}, False),
        ({"Modality": "CT", "BodyPartExamined": "HEAD"}, True),
        ({"Modality": "CT", "BodyPartExamined": "CHEST", "SliceThickness": "1"}, False),
        (
            {
                "Modality": "CT",
                "BodyPartExamined": "CHEST",
                "ProtocolName": "Hals-Thorax",
                "SliceThickness": "1",
            },
            True,
        ),
        ({"Modality": "CT", "StudyDescription": "CT hersenen blanco", "SliceThickness": "1"}, True),
        ({"Modality": "CT", "BodyPartExamined": "CSPINE", "SliceThickness": "1"}, True),
        ({"Modality": "CT", "BodyPartExamined": "HEAD AND NECK", "SliceThickness": "1"}, True),
        ({"Modality": "CT", "BodyPartExamined": "HEART", "SliceThickness": "1"}, False),
        ({"Modality": "CT", "ProtocolName": "THORAX_HALS", "SliceThickness": "1"}, True),
        ({"Modality": "MR", "BodyPartExamined": "HEAD"}, None),
        ({"Modality": "CT", "SliceThickness": "1"}, None),
        ({"Modality": "CT", "SliceThickness": "0"}, None),
        ({"Modality": "DX", "BodyPartExamined": "SKULL"}, False),
    ],
)
def test_faces(values: dict[str, object], *, face: bool | None) -> None:
    assert recognizable_face(header(**values)) is face


@pytest.mark.parametrize("word", ["L", "PA", "PORTABLE", "PORTARLE", "LIGGEND", "STAAND", ""])
def test_words_that_may_stay(word: str) -> None:
    assert is_allowed(word, shipped_words())


def test_a_region_named_by_its_code_counts() -> None:
    ds = header(Modality="CT", SliceThickness="1")
    ds.AnatomicRegionSequence = [header(CodeMeaning="Head and neck")]
    assert recognizable_face(ds) is True


@pytest.mark.parametrize(
    ("word", "own"),
    [("MAS", "MAS"), ("LINKS", "LINKS"), ("PORTARLE", "PORTARLE"), ("LATERMAAL", "LATERMAAN"), ("LI", "LI")],
)
def test_a_patient_s_own_name_is_no_marker(word: str, own: str) -> None:
    assert is_allowed(word, shipped_words()) or word == "LATERMAAL"
    assert not is_allowed(word, shipped_words(), frozenset({own}))


@pytest.mark.parametrize(
    "word",
    [
        "RECHTER",
        "LIGGETT",
        "JANSEN",
        "P0RTABLE",
        "1957",
        "PORTER",
        "LA",
        "STAANDER1",
        "SIMONE",
        "MARIA",
        "LI1",
    ],
)
def test_words_that_may_not(word: str) -> None:
    assert not is_allowed(word, shipped_words())


@given(st.lists(boxes, max_size=12))
def test_joined_boxes_hold_all_and_do_not_meet(many: list[Box]) -> None:
    found = joined(many)
    assert not any(a.meets(b) for i, a in enumerate(found) for b in found[i + 1 :])
    for box in many:
        assert any(box.around(whole) == whole for whole in found)


@given(boxes, st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]))
def test_a_scaled_box_loses_nothing(box: Box, factor: float) -> None:
    scaled = box.scaled(factor)
    assert scaled.top <= box.top * factor
    assert scaled.left <= box.left * factor
    assert scaled.bottom >= box.bottom * factor
    assert scaled.right >= box.right * factor
