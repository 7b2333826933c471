"""One Dockerfile for two variants of an image: which base is named, and what is refused before an engine is asked."""

from pathlib import Path

import pytest
from tool_kit import Tool

from policies.errors import ExitCode
from train_images.base.build import TORCH_IMAGES
from train_images.tool.building import base_images
from train_images.tool.folders import read_folder

TRAINS = Path(__file__).resolve().parents[4] / "train_images"
MANIFEST = (TRAINS / "cxr-classification" / "train.yaml").read_text()


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    (tmp_path / "train.yaml").write_text(MANIFEST)
    return tmp_path


@pytest.mark.parametrize("use", ["${TORCH}", "$TORCH", "--platform=linux/amd64 ${TORCH} AS train"])
def test_the_base_is_the_arguments_default_until_another_is_given(train: Path, use: str) -> None:
    (train / "Dockerfile").write_text(f"# ours\nARG TORCH=pht-train-torch:0.2\nFROM {use}\nCOPY a b\n")
    folder = read_folder(train)
    assert base_images(folder) == ("pht-train-torch:0.2",)
    assert base_images(folder, {"TORCH": "pht-train-torch-cuda:0.2"}) == ("pht-train-torch-cuda:0.2",)
    assert base_images(folder, {"OTHER": "x:1"}) == ("pht-train-torch:0.2",)


def test_an_argument_inside_a_stage_names_no_base(train: Path) -> None:
    (train / "Dockerfile").write_text("FROM a:1 AS b\nARG TORCH=c:1\nFROM ${TORCH}\n")
    assert base_images(read_folder(train), {"TORCH": "d:1"}) == ("a:1", "${TORCH}")


def test_a_dockerfile_that_makes_one_image_is_not_built_for_another_variant(
    train: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{train}/none.sock")
    (train / "Dockerfile").write_text("FROM pht-train-torch:0.2\nARG TORCH=pht-train-torch:0.2\n")
    said = " ".join(tool.error(ExitCode.USAGE, "build", train, "--variant", "cuda").split())
    assert "names no ARG TORCH" in said
    assert "ARG TORCH=pht-train-torch:0.2 and FROM ${TORCH}" in said
    # The variant that it makes is stopped by nothing but the engine that is not there.
    assert "Docker" in tool.error(ExitCode.UNAVAILABLE, "build", train)


def test_every_torch_train_that_ships_has_both_variants() -> None:
    # The quickstart shows how few lines a Dockerfile needs, and one variant is what they make.
    found = [
        path
        for path in sorted(TRAINS.glob("*/Dockerfile"))
        if "pht-train-torch" in path.read_text() and path.parent.name != "example-quickstart"
    ]
    assert len(found) >= 2
    for path in found:
        folder = read_folder(path.parent)
        assert set(base_images(folder)) == {TORCH_IMAGES["cpu"]}, path
        assert set(base_images(folder, {"TORCH": TORCH_IMAGES["cuda"]})) == {TORCH_IMAGES["cuda"]}, path


def test_variants_have_names_of_their_own(train: Path) -> None:
    folder = read_folder(train)
    version = folder.manifest.version
    assert folder.tag_of("cpu") == f"pht-cxr-classification:{version}"
    assert folder.tag_of("cuda") == f"pht-cxr-classification:{version}-cuda"
