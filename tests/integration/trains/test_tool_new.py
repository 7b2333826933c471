"""What `pht-train new` writes is built, packed and passes its dry run as it is: the real sandbox, the real guard."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tool_kit import Tool
from trains_kit import Yard

from train_images.tool.folders import PackedTrain


def written(yard: Yard, tool: Tool, folder: Path, *options: str) -> PackedTrain:
    """A new train, packed without a change."""
    tool("new", folder, *options)
    return yard.packed(tool, folder.name, source=folder)


def measured(report: Any) -> dict[str, Any]:
    return {each["what"]: each for each in report["measures"]}


@pytest.mark.docker
def test_a_new_flower_train_trains_and_is_scored(yard: Yard, tool: Tool, tmp_path: Path) -> None:
    train = written(yard, tool, tmp_path / "new-flower")
    report = tool.json("check", train.path, "--patients", 48)
    assert report["outcome"] == "released"
    assert not [each for message in report["messages"] for each in message["suppressed"]]
    told = {each["stage"]: each for each in report["messages"]}
    assert set(told["train"]["metrics"]) == {"loss"}
    assert {"loss"} <= set(told["evaluate"]["metrics"]) <= {"loss", "auc"}
    assert told["train"]["arrays_bytes"] > 4 * 20_000
    assert report["notes"] == []
    # It works in the container that it asks for, and the tool sees it: torch alone is this much.
    assert 100 < measured(report).get("memory, at most", {"measured": 101})["measured"] < 2048
    assert measured(report)["start"]["measured"] > 0.5


@pytest.mark.docker
def test_a_new_map_train_is_asked_patient_by_patient(yard: Yard, tool: Tool, tmp_path: Path) -> None:
    train = written(yard, tool, tmp_path / "new-map", "--kind", "map", "--modality", "CT")
    report = tool.json("check", train.path, "--patients", 22)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    told = {*message["tables"], *(each["key"] for each in message["suppressed"])}
    assert told == {"air", "air_density", "sex", "how_it_ended"}
    (answered, *others) = message["tables"]["how_it_ended"]
    assert answered == [report["patients"]["training"]]
    assert not any(cell for line in others for cell in line)
    assert report["image_shape"] == [64, 64, 24]
    longest = measured(report)["longest patient"]
    assert 0 < longest["measured"] < longest["asked"] == 60


@pytest.mark.docker
def test_a_new_command_train_answers(yard: Yard, tool: Tool, tmp_path: Path) -> None:
    train = written(yard, tool, tmp_path / "new-command", "--kind", "command", "--modality", "CR")
    report = tool.json("check", train.path)
    assert report["outcome"] == "released"
    assert 1.0 <= report["messages"][0]["metrics"]["images_per_patient"] <= 3.0
    assert "start" in measured(report)


def test_the_test_that_comes_with_a_new_flower_train_passes(tool: Tool, tmp_path: Path) -> None:
    folder = tmp_path / "tried-outside"
    tool("new", folder)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "5 passed" in ran.stdout, ran.stdout
