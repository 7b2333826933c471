"""The map train that ships, as a researcher tries it: built, packed, and run in a container per made-up patient."""

import subprocess
from pathlib import Path

import pytest
from tool_kit import Tool

import train_images

pytestmark = pytest.mark.docker

EXAMPLE = Path(train_images.__file__).parent / "example-map"
TAG = "pht-test-tool-map:1"


def test_the_example_is_built_packed_and_passes_its_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = Tool(capsys)
    try:
        tool("build", EXAMPLE, "--tag", TAG)
        tool("pack", EXAMPLE, tmp_path / "bundle", "--tag", TAG)
        report = tool.json("check", tmp_path / "bundle", "--patients", 22)
    finally:
        subprocess.run(["docker", "rmi", "-f", TAG], check=False, capture_output=True, timeout=60)
    assert report["outcome"] == "released"
    (message,) = report["messages"]
    (answered, *others) = message["tables"]["how_it_ended"]
    assert answered == [report["patients"]["training"]]
    assert not any(cell for line in others for cell in line)
    told = [cell for table in message["tables"].values() for line in table for cell in line]
    assert not [cell for cell in told if 0 < cell < 10]
    assert message["metrics"] == {}
