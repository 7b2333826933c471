"""What a train may declare to mark and measure, and what of it is refused when the manifest is read."""

from typing import Any

import pytest
from board_kit import EXAMPLE
from pydantic import ValidationError
from station_documents import MANIFEST, as_yaml

from policies.board.comparing.documents import changes_between
from policies.board.documents.documents_in import Train
from policies.board.reviewing.policy_words import predictions_in_words
from policies.board.reviewing.review import review_policy, review_train
from policies.documents import canonical_json, digest_of, load_yaml
from policies.manifest import TrainManifest
from policies.policy import Policy
from policies.predictions import Code

LUNG: dict[str, Any] = {
    "name": "lungs",
    "kind": "segmentation",
    "segments": [
        {
            "name": "lung",
            "category": {"value": "123037004", "scheme": "SCT", "meaning": "Anatomical Structure"},
            "type": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
        }
    ],
}
AREA: dict[str, Any] = {
    "name": "share",
    "kind": "measurements",
    "values": [
        {
            "name": "involved",
            "title": {"value": "involved", "scheme": "99PHT", "meaning": "Involved share of the lungs"},
            "unit": "%",
            "minimum": 0,
            "maximum": 100,
        }
    ],
}


def manifest(*predictions: Any, **changes: Any) -> TrainManifest:
    document = as_yaml(MANIFEST)
    document["outputs"]["predictions"] = list(predictions)
    document["data"] |= changes.pop("data", {})
    return TrainManifest.model_validate_json(canonical_json(document | changes))


def test_a_manifest_declares_marks_and_measures() -> None:
    lungs, share = manifest(LUNG, AREA).outputs.predictions
    assert (lungs.segments[0].type.value, share.values[0].unit) == ("39607008", "%")
    assert manifest().outputs.predictions == ()


@pytest.mark.parametrize(
    ("predictions", "says"),
    [
        ([LUNG, LUNG], "named twice"),
        ([AREA, AREA | {"name": "again"}], "stands in two predictions"),
        ([LUNG | {"segments": []}], "a segmentation has segments"),
        ([LUNG | {"values": AREA["values"]}], "a segmentation has segments"),
        ([AREA | {"segments": LUNG["segments"]}], "measurements have values"),
        ([LUNG | {"segments": LUNG["segments"] * 2}], "names a segment or a value twice"),
        ([LUNG | {"name": "../lungs"}], "String should match pattern"),
        ([AREA | {"values": [AREA["values"][0] | {"unit": "mm of Hg"}]}], "no UCUM unit"),
        ([AREA | {"values": [AREA["values"][0] | {"maximum": 0}]}], "minimum must be below maximum"),
        ([LUNG | {"name": f"lungs{n}"} for n in range(9)], "at most 8"),
    ],
)
def test_what_contradicts_itself_is_refused(predictions: list[Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        manifest(*predictions)


def test_a_mistyped_code_is_found_by_its_check_digit() -> None:
    with pytest.raises(ValidationError, match="check digit"):
        Code(value="39607080", scheme="SCT", meaning="Lung")
    # Only SNOMED CT has one.
    assert str(Code(value="39607080", scheme="99PHT", meaning="Lung")) == "Lung (a code of its own)"


@pytest.mark.parametrize(
    "meaning", ["Lung^Patient", "Lung\\Heart", "Lung\n", "", " Lung", "x" * 65, "<b>Lung</b>"]
)
def test_a_meaning_is_plain_text(meaning: str) -> None:
    with pytest.raises(ValidationError):
        Code(value="39607008", scheme="SCT", meaning=meaning)


def test_only_a_warm_train_that_sees_volumes_predicts() -> None:
    with pytest.raises(ValidationError, match="representation is volume"):
        manifest(LUNG, data={"representation": "dicom"})
    document = as_yaml(MANIFEST)
    document |= {"kind": "analysis", "interface": "map"}
    document["outputs"] = {
        "rows": {"columns": [{"name": "share", "type": "float", "minimum": 0, "maximum": 1}]},
        "aggregates": [{"key": "shares", "column": "share", "edges": [0.5], "split": "training"}],
        "predictions": [LUNG],
    }
    with pytest.raises(ValidationError, match="interface is flower or command"):
        TrainManifest.model_validate_json(canonical_json(document))


def _policy(*, local: bool) -> Policy:
    plain = load_yaml(Policy, EXAMPLE.read_bytes(), what="policy")
    release = plain.release.model_copy(update={"local_predictions": local})
    return plain.model_copy(update={"release": release})


def test_a_policy_permits_none_unless_it_says_so_and_permitting_widens() -> None:
    assert (
        Policy.model_json_schema()["$defs"]["ReleaseRules"]["properties"]["local_predictions"]["default"]
        is False
    )
    (change,) = changes_between(_policy(local=False), _policy(local=True))
    assert (change.field, change.direction) == ("release.local_predictions", "widens")
    (more,) = changes_between(manifest(LUNG), manifest(LUNG, AREA))
    assert (more.field, more.direction) == ("outputs.predictions[share]", "widens")


def test_the_board_reads_it_in_words() -> None:
    train = Train(manifest(LUNG, AREA), digest_of(b"manifest"), (), ())
    lines = "\n".join(line for section in review_train(train).sections for line in section.lines)
    assert (
        "For the hospital alone, it never leaves: marks on the images, lungs: lung: Lung (SCT 39607008)"
        in lines
    )
    assert "involved: Involved share of the lungs (a code of its own), 0 to 100 %" in lines
    policy = _policy(local=True)
    review = review_policy(policy, b"", digest_of(b""), train=train, weights=None, previous=None)
    said = "\n".join(line for section in review.sections for line in section.lines)
    assert "they do not leave" in predictions_in_words(policy.release)
    assert predictions_in_words(policy.release) in said
    assert "No hospital is given" in predictions_in_words(_policy(local=False).release)
    silent = Train(manifest(), digest_of(b"manifest"), (), ())
    review = review_policy(policy, b"", digest_of(b""), train=silent, weights=None, previous=None)
    assert any("the train makes none" in point for point in review.attention)
