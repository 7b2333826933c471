"""Hyperparameters as typed, held to the manifest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tool_kit import MANIFEST

from policies.documents import load_yaml
from policies.errors import PhtError, RefusedError, UsageError
from policies.manifest import TrainManifest
from train_images.tool.hyperparameters import choose

TRAIN = load_yaml(TrainManifest, MANIFEST.encode(), what="train.yaml")


def test_every_hyperparameter_is_written_out() -> None:
    assert choose(TRAIN, []) == {"step": 1.0, "times": 2, "flip": False}
    assert choose(TRAIN, ["times=3", "flip=true"]) == {"step": 1.0, "times": 3, "flip": True}


def test_a_whole_number_does_for_a_fraction() -> None:
    chosen = choose(TRAIN, ["step=3"])
    assert isinstance(chosen["step"], float)


@pytest.mark.parametrize("text", ["step=11", "times=0", "times=2.5", "flip=1", "stride=1", "step=true"])
def test_what_the_manifest_does_not_allow_is_refused(text: str) -> None:
    with pytest.raises(RefusedError) as found:
        choose(TRAIN, [text])
    assert found.value.code == "ORDER_CONFIG"


@pytest.mark.parametrize(
    "texts", [["step"], ["=1"], ["step=fast"], ["step=[1]"], ["step=1", "step=2"], ["step="]]
)
def test_what_makes_no_sense_is_an_error(texts: list[str]) -> None:
    with pytest.raises(UsageError):
        choose(TRAIN, texts)


@given(st.text(max_size=20))
def test_whatever_is_typed_gives_values_in_range_or_one_of_our_errors(text: str) -> None:
    for setting in (text, f"step={text}", f"times={text}", f"flip={text}"):
        try:
            chosen = choose(TRAIN, [setting])
        except PhtError:
            continue
        assert all(spec.problem_with(chosen[name]) is None for name, spec in TRAIN.hyperparameters.items())
