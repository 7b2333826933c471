"""The chest X-ray train in the real sandbox and through the real guard."""

import pytest
from tool_kit import Tool
from trains_kit import Yard

from algorithms.cxr_classification.calibration import TEMPERATURES

pytestmark = pytest.mark.docker

SMALL = ("--patients", 60, "--set", "image_size=64")
TOLD = {*TEMPERATURES, "brier", "auc"}


def test_it_trains_and_tells_what_a_temperature_needs(yard: Yard, tool: Tool) -> None:
    train = yard.packed(tool, "cxr-classification")
    report = tool.json("check", train.path, "--rounds", 1, *SMALL, "--set", "calibrate_from_round=1")
    assert report["outcome"] == "released"
    told = [(each["round"], each["stage"], set(each["metrics"])) for each in report["messages"]]
    assert told == [(1, "train", {"loss"}), (1, "evaluate", TOLD)]
    trained, evaluated = report["messages"]
    # DenseNet121's 6.95 million parameters and BatchNorm's statistics, in float32; counters stay.
    assert 28e6 < trained["arrays_bytes"] < 28.5e6
    losses = evaluated["metrics"]
    assert 0 < losses["loss"] < 100
    assert 0 < losses["brier"] < 1
    # In one over the temperature the loss is convex: no loss inside is above both of its neighbours.
    curve = [losses[name] for name in TEMPERATURES]
    assert all(
        here <= max(before, after) + 1e-4
        for before, here, after in zip(curve, curve[1:], curve[2:], strict=False)
    )
    measured = {each["what"]: each for each in report["measures"]}
    if "memory, at most" in measured:
        assert measured["memory, at most"]["measured"] < measured["memory, at most"]["asked"]
