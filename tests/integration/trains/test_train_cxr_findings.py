"""The chest X-ray train for several findings: a copy changed as its page says, in the real sandbox and through the real guard."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from tool_kit import Tool, make_policy
from trains_kit import TRAINS, Yard

from algorithms.cxr_classification.calibration import TEMPERATURES
from policies.errors import ExitCode

pytestmark = pytest.mark.docker

FINDINGS = ("pneumonia", "smoker")
SMALL = ("--patients", 60, "--set", "image_size=64")
MIB = 1 << 20


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """The folder of a train for two fields of the profile: smoking shows on no radiograph, and is known of most people."""
    folder = tmp_path / "cxr-findings"
    shutil.copytree(TRAINS / "cxr-classification", folder)
    description = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps(description | {"findings": FINDINGS}))
    manifest: dict[str, Any] = yaml.safe_load((folder / "train.yaml").read_text())
    manifest["name"] = "cxr-findings"
    manifest["data"]["clinical_fields"] = list(FINDINGS)
    del manifest["data"]["label"]
    (area,) = [each for each in manifest["outputs"]["metrics"] if each["key"] == "auc"]
    manifest["outputs"]["metrics"] += [area | {"key": f"auc_{name}"} for name in FINDINGS]
    manifest["network"]["arguments"]["out_channels"] = len(FINDINGS)
    manifest["network"]["output"]["channels"] = list(FINDINGS)
    (folder / "train.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def test_two_findings_are_trained_and_an_auc_of_each_is_released(
    yard: Yard, tool: Tool, several: Path, tmp_path: Path
) -> None:
    train = yard.packed(tool, several.name, source=several)
    report = tool.json("check", train.path, "--rounds", 1, *SMALL, "--set", "calibrate_from_round=1")
    assert report["outcome"] == "released"
    trained, evaluated = report["messages"]
    assert trained["arrays_bytes"] > 28e6
    areas = {"auc", *(f"auc_{name}" for name in FINDINGS)}
    assert set(evaluated["metrics"]) == {*TEMPERATURES, "brier", *areas}
    told = evaluated["metrics"]
    assert told["auc"] == pytest.approx(sum(told[f"auc_{name}"] for name in FINDINGS) / 2, abs=2e-3)
    # No example policy is this train's, and the skeleton has room for a small update alone: the board is told the number.
    (note,) = [each for each in report["notes"] if "release.maximum_bytes" in each]
    ceiling = int(note.split("release.maximum_bytes of ")[1].split(",")[0])
    assert MIB < trained["arrays_bytes"] < ceiling < trained["arrays_bytes"] + 2 * MIB

    weights = tmp_path / "initial.safetensors"
    tool("init-weights", train.path, weights)
    with safe_open(weights, "np") as file:
        assert file.get_slice("class_layers.out.weight").get_shape()[0] == len(FINDINGS)


def test_a_policy_that_no_update_fits_is_refused_before_images_are_made(
    yard: Yard, tool: Tool, several: Path, tmp_path: Path
) -> None:
    train = yard.packed(tool, several.name, source=several)
    policy = make_policy(train, tmp_path / "policy.yaml", "ab" * 32)
    said = tool.error(ExitCode.REFUSED, "check", train.path, "--policy", policy, *SMALL)
    assert "RELEASE_TOO_LARGE" in said
    assert "release.maximum_bytes is 1,048,576" in said
    assert "pht-board draft --weights" in said
    assert "making images" not in said + tool.out
