"""The shipped profiles: well made, in step with what is generated from them, and readable by people."""

import json
import re
from importlib.resources import files

import pytest

from policies.cli import app
from policies.console import run
from policies.documents import canonical_json, load_json
from policies.errors import DocumentError, NotFoundError
from policies.profiles import Profile, load_profile, shipped_profiles
from policies.profiles.describing import page, row_schema

FOLDER = files("policies.profiles")
# The fields on which data and trains that exist already rely.
THORAX = ["pneumonia", "sex", "age_years", "temperature_c", "crp_mg_l", "smoker"]


def test_two_profiles_ship() -> None:
    assert shipped_profiles() == ("ncif-covid-1@1", "thorax-1@1")


@pytest.mark.parametrize("name", shipped_profiles())
def test_page_and_schema_are_in_step(name: str) -> None:
    profile = load_profile(name)
    assert FOLDER.joinpath(f"{name}.md").read_bytes() == page(profile).encode(), (
        "run `pht-board profile write`"
    )
    assert FOLDER.joinpath(f"{name}.schema.json").read_bytes() == row_schema(profile), (
        "run `pht-board profile write`"
    )


@pytest.mark.parametrize("name", shipped_profiles())
def test_the_page_names_every_field_answer_and_code(name: str) -> None:
    profile, text = load_profile(name), page(load_profile(name))
    for field in profile.fields:
        assert f"| `{field.name}`" in text
        for entry in field.values:
            assert f"| `{field.name}` | `{entry.value}` | {entry.meaning} |" in text
        for concept in (*field.concepts, *(concept for entry in field.values for concept in entry.concepts)):
            assert f"{concept.system} {concept.code}" in text


def test_thorax_1_is_what_data_and_trains_were_made_for() -> None:
    profile = load_profile("thorax-1@1")
    assert [field.name for field in profile.fields] == THORAX
    assert profile.columns == (
        "patient_id", "accession", "pneumonia", "sex", "birth_date", "temperature_c", "crp_mg_l", "smoker",
    )  # fmt: skip
    assert profile.band("pneumonia", 1) == 1
    assert profile.band("smoker", False) is False


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_code_has_the_form_and_the_check_digit_of_its_system(name: str) -> None:
    for field in load_profile(name).fields:
        for concept in (*field.concepts, *(concept for entry in field.values for concept in entry.concepts)):
            if concept.system == "LOINC":
                assert loinc_check(concept.code), concept
            else:
                assert concept.system == "SNOMED CT"
                assert verhoeff(concept.code), concept


@pytest.mark.parametrize("name", shipped_profiles())
def test_what_singles_people_out_is_marked(name: str) -> None:
    quasi = load_profile(name).quasi_identifiers()
    assert {"sex", "age_years"} <= set(quasi)
    for field in load_profile(name).fields:
        if field.kind in {"date", "age"}:
            assert field.name in quasi


def test_ncif_has_what_the_consortia_collected() -> None:
    names = {field.name for field in load_profile("ncif-covid-1@1").fields}
    assert {
        "rt_pcr", "rt_pcr_days", "co_rads", "symptom_onset_days", "dyspnoea", "saturation_percent", "oxygen_support",
        "icu_admission", "ventilation", "outcome_30d", "hypertension", "diabetes", "copd", "vaccination", "bmi_kg_m2",
        "sex", "age_years",
    } <= names  # fmt: skip


def test_a_row_under_the_schema() -> None:
    schema = json.loads(row_schema(load_profile("ncif-covid-1@1")))
    assert schema["properties"]["co_rads"]["enum"] == [0, 1, 2, 3, 4, 5, 6, None]
    assert schema["properties"]["saturation_percent"]["x-unit-ucum"] == "%"
    assert schema["required"] == ["rt_pcr"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "date", "band": {"kind": "exact"}}, "cannot have a band of kind exact"),
        ({"kind": "age", "band": {"kind": "exact"}}, "cannot have a band of kind exact"),
        ({"kind": "number", "band": {"kind": "exact"}}, "cannot have a band of kind exact"),
        ({"kind": "integer", "band": {"kind": "exact"}}, "only where its values are listed"),
        ({"kind": "code", "band": {"kind": "exact"}}, "lists its values"),
        ({"kind": "days", "band": {"kind": "withheld"}}, "measured"),
        ({"kind": "age", "band": {"kind": "range", "step": 10, "top": 95}}, "whole steps"),
        ({"kind": "flag", "surprise": 1}, "not a known key"),
        ({"kind": "flag", "concepts": [{"system": "LOINC", "code": "1-8", "display": "x", "source": "gone"}]}, "gone"),
    ],
)  # fmt: skip
def test_a_profile_that_contradicts_itself_is_refused(change: dict[str, object], says: str) -> None:
    field = {"name": "x", "description": "x", "when": "at-study", **change}
    document = {"id": "x@1", "title": "x", "description": "x", "fields": [field]}
    with pytest.raises(DocumentError, match=re.escape(says)):
        load_json(Profile, canonical_json(document), what="x")


@pytest.mark.parametrize(
    "name", ["unknown-1", "thorax-1", "thorax-1@2", "../profiles/thorax-1@1", "", "thorax-1@1.schema"]
)
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(NotFoundError):
        load_profile(name)


def test_the_board_reads_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["profile", "list", "--json"]) == 0
    assert [row["profile"] for row in json.loads(capsys.readouterr().out)] == list(shipped_profiles())
    assert run(app, ["profile", "show", "ncif-covid-1@1"]) == 0
    assert "CO-RADS" in capsys.readouterr().out
    assert run(app, ["profile", "show", "thorax-1@1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "thorax-1@1"
    assert run(app, ["profile", "show", "nothing@1"]) == 9


def loinc_check(code: str) -> bool:
    """LOINC's Mod 10 check digit (LOINC Users' Guide, appendix)."""
    number, digit = code.split("-")
    odd = str(int(number[::-1][::2][::-1]) * 2)
    even = number[::-1][1::2][::-1]
    return (10 - sum(map(int, odd + even)) % 10) % 10 == int(digit)


def verhoeff(code: str) -> bool:
    """SNOMED CT's check digit: Verhoeff's, over the dihedral group of order ten."""
    permutation = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    step = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for digit in reversed(code):
        check = dihedral(check, permutation[int(digit)])
        permutation = [permutation[value] for value in step]
    return check == 0


def dihedral(left: int, right: int) -> int:
    if left < 5:
        return (left + right) % 5 if right < 5 else (left + right - 5) % 5 + 5
    return (left - 5 - right) % 5 + 5 if right < 5 else (left - right) % 5


def test_the_check_digits_tell_a_wrong_code() -> None:
    assert verhoeff("233604007")
    assert not verhoeff("233604008")
    assert not verhoeff("236304007")
    assert loinc_check("8310-5")
    assert not loinc_check("8301-5")
