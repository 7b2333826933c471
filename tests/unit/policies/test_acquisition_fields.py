"""How images were acquired: a closed list, coarse, granted field by field; and columns that join others."""

from typing import Any

import pytest
from egress_documents import policy
from hypothesis import given
from hypothesis import strategies as st
from map_documents import map_manifest

from policies.acquisition import FORMS, AcquisitionField, shown
from policies.board.documents.documents_in import Train
from policies.board.reviewing.review import review_policy, review_train
from policies.errors import DocumentError
from policies.profiles import load_profile, shipped_profiles
from policies.refusals import RefusalCode
from policies.rows import RowSchema
from policies.rules.capacity import trust_in_words
from policies.rules.cohort_rules import cohort_reasons

MAKERS = {
    "name": "manufacturer", "type": "category", "categories": ["philips", "siemens", "other"], "missing": True,
    "source": "acquisition",
}  # fmt: skip
FINDING = {"name": "finding", "type": "category", "categories": ["no", "yes"]}
BOTH = {
    "name": "finding_by_maker", "type": "category", "categories": ["no.philips", "yes.philips", "no.siemens", "yes.siemens"],
    "missing": True, "source": "combined", "of": ["finding", "manufacturer"],
}  # fmt: skip
COUNT = {"key": "makers", "column": "manufacturer", "split": "training"}
DATA = {"modalities": ["CT"], "profile": "thorax-1@1", "acquisition_fields": ["manufacturer"]}


def train(*columns: dict[str, Any], data: dict[str, Any] = DATA, aggregate: dict[str, Any] = COUNT) -> Any:
    return map_manifest({"data": data}, rows={"columns": [FINDING, *columns]}, aggregates=[aggregate])


# -- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("SIEMENS", "siemens"), ("Siemens Healthineers", "siemens"), ("GE MEDICAL SYSTEMS", "ge"), ("GE", "ge"),
        ("Philips Medical Systems", "philips"), ("TOSHIBA_MEC", "toshiba"), ("FUJI PHOTO FILM Co., ltd.", "fujifilm"),
        ("KODAK", "carestream"), ("Geometrics", "other"), ("Hospital of St. Elsewhere, room 4", "other"), ("  ", None), (7, None),
    ],
)  # fmt: skip
def test_a_scanner_is_its_maker_and_no_more(written: object, told: str | None) -> None:
    assert shown(AcquisitionField.MANUFACTURER, written) == told


@given(
    st.sampled_from(AcquisitionField),
    st.text(max_size=30) | st.floats() | st.integers() | st.booleans() | st.none(),
)
def test_whatever_a_header_holds_only_the_fields_own_values_are_shown(
    field: AcquisitionField, value: object
) -> None:
    form, told = FORMS[field], shown(field, value)
    if told is None:
        return
    if form.categories:
        assert told in form.categories
    else:
        assert isinstance(told, int | float)
        assert 0 < told <= form.maximum
        assert (told / form.step).is_integer()


def test_a_field_has_no_name_of_a_clinical_one() -> None:
    clinical = {field.name for profile in shipped_profiles() for field in load_profile(profile).fields}
    assert not clinical & set(AcquisitionField)
    assert set(FORMS) == set(AcquisitionField)


# -- what may be asked and granted -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "data", "why"),
    [
        ([MAKERS], DATA | {"acquisition_fields": []}, "does not ask for"),
        ([MAKERS], DATA | {"acquisition_fields": ["serial_number"]}, "acquisition_fields"),
        ([MAKERS], DATA | {"acquisition_fields": ["manufacturer", "manufacturer"]}, "twice"),
        ([MAKERS], DATA | {"clinical_fields": ["manufacturer"]}, "and as an acquisition field"),
        ([MAKERS, BOTH | {"of": ["finding"]}], DATA, "two or three"),
        ([MAKERS, BOTH | {"of": []}], DATA, "says of which"),
        ([MAKERS, MAKERS | {"name": "other", "of": ["finding", "manufacturer"]}], DATA, "says of which"),
        ([MAKERS, BOTH | {"of": ["finding", "nobody"]}], DATA, "no columns of categories"),
        ([MAKERS, BOTH, BOTH | {"name": "thrice", "of": ["finding", "finding_by_maker"]}], DATA, "no columns of categories"),
        ([MAKERS, BOTH | {"categories": ["yes.philips", "maybe.philips"]}], DATA, r"maybe\.philips"),
        ([{"name": "a", "type": "category", "categories": ["no", "no.x"]}, {"name": "b", "type": "category", "categories": ["x.y", "y"]},
          {"name": "c", "type": "category", "categories": ["no.x.y"], "source": "combined", "of": ["a", "b"]}, MAKERS], DATA, "look the same"),
    ],
    ids=["unasked", "unknown", "twice", "both", "one", "none", "of", "nobody", "nested", "category", "alike"],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_when_it_is_written(columns: Any, data: Any, why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        train(*columns, data=data)


def test_what_a_policy_does_not_grant_is_refused() -> None:
    asked = train(MAKERS)
    (reason,) = cohort_reasons(policy("analysis", data={"modalities": ["CT"]}), asked)
    assert (reason.code, reason.detail) == (RefusalCode.DATA_FIELDS, "not granted: manufacturer")
    granting = policy("analysis", data={"modalities": ["CT"], "acquisition_fields": ["manufacturer"]})
    assert cohort_reasons(granting, asked) == []


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (MAKERS | {"categories": ["philips", "acme"]}, "never is acme"),
        (
            {"name": "manufacturer", "type": "int", "minimum": 0, "maximum": 9, "source": "acquisition"},
            "codes",
        ),
        (
            {"name": "slice_thickness_mm", "type": "category", "categories": ["5"], "source": "acquisition"},
            "numbers",
        ),
    ],
    ids=["category", "number", "text"],
)
def test_a_column_that_could_never_be_filled_in_is_refused(column: dict[str, Any], why: str) -> None:
    fields = ["manufacturer", "slice_thickness_mm"]
    aggregate = {"key": "findings", "column": "finding", "split": "training"}
    asked = train(column, data=DATA | {"acquisition_fields": fields}, aggregate=aggregate)
    granting = policy("analysis", data={"modalities": ["CT"], "acquisition_fields": fields})
    (reason,) = cohort_reasons(granting, asked)
    assert reason.code is RefusalCode.DATA_FIELDS
    assert why in (reason.detail or "")


def test_a_review_says_what_is_shown_of_how_images_were_acquired() -> None:
    asked = Train(train(MAKERS, BOTH), "sha256:" + "1" * 64, ("sha256:" + "2" * 64,))
    text = "\n".join(line for section in review_train(asked).sections for line in section.lines)
    assert "How images were acquired: manufacturer." in text
    assert (
        "Filled in by the station from how images were acquired, whatever the train says: manufacturer."
        in text
    )
    assert "Joined by the station: finding_by_maker is finding and manufacturer together." in text
    refusing = policy(
        "analysis", data={"modalities": ["CT"]}, metrics=[], tables=["makers"], trust_statement=None
    )
    review = review_policy(refusing, b"", "sha256:" + "3" * 64, train=asked, weights=None, previous=None)
    said = "\n".join([*review.attention, *(line for section in review.sections for line in section.lines)])
    assert "The train asks for more of how images were acquired." in said
    assert "How images were acquired: nothing." in said


# -- columns that join others ------------------------------------------------------------------------------------------


def test_a_combined_column_says_what_the_others_say() -> None:
    schema: RowSchema = train(MAKERS, BOTH).outputs.rows
    name = "finding_by_maker"
    assert schema.joined({"finding": "yes", "manufacturer": "siemens"}) == {name: "yes.siemens"}
    assert schema.joined({"finding": "yes", "manufacturer": None}) == {name: None}
    # Not named, and it may be missing.
    assert schema.joined({"finding": "yes", "manufacturer": "other"}) == {name: None}
    strict: RowSchema = train(MAKERS, BOTH | {"missing": False}).outputs.rows
    told = strict.joined({"finding": "yes", "manufacturer": "other"})[name]
    column = strict.column(name)
    assert column is not None
    assert not column.accepts(told)
    # It is none of the train's to fill in, and rests on what the train says all the same.
    assert strict.read({"finding": "yes", name: "yes.siemens"}) is None
    assert strict.stated == {"finding", name}


def test_a_sum_divided_by_what_the_train_says_is_named_to_the_board() -> None:
    number = {"name": "share", "type": "float", "minimum": 0.0, "maximum": 1.0}
    aggregate = {
        "key": "shares",
        "column": "share",
        "measure": "sum",
        "by": "finding_by_maker",
        "decimals": 2,
        "split": "training",
    }
    asked = train(MAKERS, BOTH, number, aggregate=aggregate)
    words = trust_in_words(policy("analysis", metrics=[], tables=["shares"], trust_statement=None), asked)
    assert "shares" in words
