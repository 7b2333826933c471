"""The models that ship foresee every value that their profile can show, and read the fields that their trains ask for."""

import json
import re
from collections.abc import Iterator

import pytest
from glm_kit import ROOT, train_manifest

from algorithms.glm.errors import GlmError
from algorithms.glm.initial_weights import initial_weights
from algorithms.glm.specification import CategoryField, NumberField, model_of, read_model
from policies.profiles import load_profile
from policies.profiles.model import ClinicalValue, ProfileField

TRAINS = ("glm", "glm-cox")


def text_of(value: ClinicalValue) -> str:
    """A value as `clinical.csv` has it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def possible(field: ProfileField) -> Iterator[ClinicalValue]:
    """Every value that fits a field, of numbers in steps of one."""
    if field.kind == "flag":
        yield from (True, False)
    elif field.codes:
        yield from (int(code) if field.kind == "integer" else code for code in field.codes)
    else:
        assert field.minimum is not None
        assert field.maximum is not None
        yield from range(int(field.minimum), int(field.maximum) + 1)
    yield None


@pytest.mark.parametrize("name", TRAINS)
def test_every_value_that_the_profile_shows_is_foreseen(name: str) -> None:
    model, needs = read_model(ROOT / "train_images" / name / "model.json"), train_manifest(name).data
    profile = load_profile(needs.profile)
    assert set(model.fields) == set(needs.clinical_fields)
    each: list[NumberField | CategoryField] = [model.outcome, *model.covariates]
    for field in [*each, *([model.time] if model.time else [])]:
        shown = {text_of(profile.band(field.field, value)) for value in possible(profile.field(field.field))}
        assert len(shown) > 2
        for text in shown:
            field.read(text)
        with pytest.raises(GlmError):
            field.read("none of these")


@pytest.mark.parametrize("name", TRAINS)
def test_weights_begin_at_zero_in_the_models_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "train_images" / name / "model.json"
    monkeypatch.setenv("PHT_MODEL", str(path))
    made = initial_weights()
    assert made["coefficients"].shape == (len(read_model(path).columns),)
    assert not any(each.any() for each in made.values())


def test_the_examples_on_the_page_are_models() -> None:
    page = (ROOT / "train_images" / "glm" / "README.md").read_text()
    (block,) = re.findall(r"```json\n(.+?)```", page, re.DOTALL)
    families = [model_of(json.loads(line)).family.value for line in block.splitlines()]
    assert families == ["poisson", "linear"]
