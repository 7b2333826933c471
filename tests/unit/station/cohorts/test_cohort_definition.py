"""What a train asks for, held against what its policy grants."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cohort_files import DEFINITION
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.documents import load_yaml
from policies.manifest import DataNeeds, Interface, TrainKind, TrainManifest
from policies.outputs import Outputs
from policies.policy import Policy
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from station.cohorts import CohortDefinition, define, rounded

ROOT = Path(__file__).parents[4]
POLICY = (ROOT / "policies" / "examples" / "cxr-classification.yaml").read_text(encoding="utf-8")


def policy(**data: Any) -> Policy:
    document = yaml.safe_load(POLICY)
    document |= {"valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-12-31T00:00:00Z"}
    document["data"] |= data
    return load_yaml(Policy, yaml.safe_dump(document).encode(), what="policy")


def manifest(**data: Any) -> TrainManifest:
    """A manifest of which only the data part counts here."""
    needs = {"modalities": ["DX"], "profile": "thorax-1@1", "label": "pneumonia"} | data
    return TrainManifest.model_construct(
        kind=TrainKind.TRAINING,
        interface=Interface.FLOWER,
        outputs=Outputs(),
        data=DataNeeds.model_validate_json(json.dumps(needs)),
    )


def codes(result: CohortDefinition | Refused) -> list[RefusalCode]:
    assert isinstance(result, Refused)
    return [reason.code for reason in result.reasons]


def test_a_definition_takes_the_grant_from_the_policy_and_the_wish_from_the_train() -> None:
    granted = policy(clinical_fields=["pneumonia", "sex", "smoker"])
    definition = define(granted, manifest(clinical_fields=["sex"]))
    assert isinstance(definition, CohortDefinition)
    assert definition.clinical_fields == ("sex", "pneumonia")
    assert definition.collections == granted.data.collections
    assert definition.minimum_patients == granted.data.minimum_patients
    assert definition.manifest_digest == granted.manifest_digest


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"clinical_fields": ["sex"]}, [RefusalCode.DATA_FIELDS]),
        ({"label": "crp_mg_l"}, [RefusalCode.DATA_FIELDS]),
        ({"modalities": ["DX", "CR"]}, [RefusalCode.DATA_MODALITY]),
        ({"modalities": ["CT"], "label": "sex"}, [RefusalCode.DATA_MODALITY, RefusalCode.DATA_FIELDS]),
        ({"representation": "dicom"}, [RefusalCode.DATA_FIELDS]),
        ({"masks": ["lesion"]}, [RefusalCode.DATA_FIELDS]),
    ],
)
def test_more_than_the_grant_is_refused(wish: dict[str, Any], expected: list[RefusalCode]) -> None:
    assert codes(define(policy(), manifest(**wish))) == expected


def test_volumes_and_masks_are_defined_where_they_are_granted() -> None:
    granted = policy(modalities=["CT", "DX"], masks=["lesion", "lung"], representations=["volume", "dicom"])
    definition = define(granted, manifest(modalities=["CT"], masks=["lung"]))
    assert isinstance(definition, CohortDefinition)
    assert definition.volumes
    assert definition.masks == ("lung",)
    files = define(granted, manifest(modalities=["CT"], representation="dicom"))
    assert isinstance(files, CohortDefinition)
    assert files.representation == "dicom"


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"modalities": ["CT", "DX"]}, RefusalCode.DATA_MODALITY),
        ({"modalities": ["DX"], "masks": ["lung"]}, RefusalCode.DATA_NOT_READY),
        ({"modalities": ["CT"], "masks": ["lung"], "representation": "dicom"}, RefusalCode.DATA_NOT_READY),
    ],
)
def test_what_has_no_layout_is_refused(wish: dict[str, Any], expected: RefusalCode) -> None:
    granted = policy(modalities=["CT", "DX"], masks=["lung"], representations=["volume", "dicom"])
    assert codes(define(granted, manifest(**wish))) == [expected]


def test_what_its_profile_does_not_have_is_refused() -> None:
    """A field that no profile bands would be shown as it is."""
    granted = policy(clinical_fields=["pneumonia", "shoe_size"])
    assert codes(define(granted, manifest(clinical_fields=["shoe_size"]))) == [RefusalCode.DATA_FIELDS]
    assert codes(define(granted, manifest(profile="thorax-999@1"))) == [RefusalCode.DATA_FIELDS]


def test_a_label_that_is_not_granted_cannot_be_written_down() -> None:
    document = DEFINITION.model_dump(mode="json") | {"label": "smoker"}
    with pytest.raises(ValidationError, match="granted clinical_fields"):
        CohortDefinition.model_validate_json(json.dumps(document))


@pytest.mark.parametrize(
    ("kind", "splits"),
    [
        (TrainKind.TRAINING, (Split.TRAINING, Split.VALIDATION)),
        (TrainKind.ANALYSIS, (Split.TRAINING, Split.VALIDATION)),
        (TrainKind.EVALUATION, (Split.TESTING,)),
    ],
)
def test_which_splits_a_train_is_given(kind: TrainKind, splits: tuple[Split, ...]) -> None:
    assert DEFINITION.model_copy(update={"kind": kind}).splits == splits


@given(count=st.integers(0, 10**9), base=st.integers(1, 1000))
def test_rounding_gives_the_nearest_multiple(count: int, base: int) -> None:
    assert rounded(count, base) % base == 0
    assert abs(rounded(count, base) - count) * 2 <= base


@pytest.mark.parametrize(("count", "base"), [(-1, 10), (1, 0)])
def test_rounding_refuses_nonsense(count: int, base: int) -> None:
    with pytest.raises(ValueError, match="counts are not negative"):
        rounded(count, base)
