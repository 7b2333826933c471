"""`pht-train lock`: the closed list of a train's own packages, on what its base image has."""

import sys
from pathlib import Path

import pytest
from tool_kit import MANIFEST, Tool
from wheel_kit import wheel

from policies.errors import ExitCode
from train_images.base import lock as locking
from train_images.base.lock import HERE, TORCH_LISTS, versions
from train_images.base.wheels import closed_list
from train_images.tool.building import base_images
from train_images.tool.folders import read_folder
from train_images.tool.own_wheels import check_own_list

NUMPY = versions(HERE / "requirements.txt")["numpy"]
NETWORKX = versions(HERE / TORCH_LISTS[0])["networkx"]


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(capsys)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip knows: a package that needs one the base has, one that torch's image has, and one of its own."""
    # Nothing in these wheels depends on the Python that runs pip.
    monkeypatch.setattr(locking, "PYTHON", f"{sys.version_info.major}.{sys.version_info.minor}")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    made = tmp_path / "index"
    wheel(made, name="lungs", requires=[
        "Requires-Dist: numpy", "Requires-Dist: networkx", "Requires-Dist: edges", "Requires-Dist: plots"])  # fmt: skip
    for name, version in (
        ("numpy", NUMPY),
        ("numpy", "99.0"),
        ("networkx", NETWORKX),
        ("edges", "1.0"),
        ("plots", "1.0"),
    ):
        wheel(made, name=name, version=version)
    return made


@pytest.fixture
def train(tmp_path: Path) -> Path:
    folder = tmp_path / "my-train"
    folder.mkdir()
    (folder / "train.yaml").write_text(MANIFEST)
    (folder / "Dockerfile").write_text("FROM pht-train-base:0.2\n")
    (folder / "requirements.in").write_text("lungs==1.0  # finds them\nwithout plots\n")
    return folder


@pytest.mark.usefixtures("index")
def test_a_list_names_what_the_base_image_lacks(train: Path, tool: Tool) -> None:
    assert tool.json("lock", train)["wheels"] == 3
    assert versions(train / "requirements.txt") == {"edges": "1.0", "lungs": "1.0", "networkx": NETWORKX}
    assert len(closed_list(train / "requirements.txt")) == 3
    first = (train / "requirements.txt").read_text()
    assert first.startswith("# Made by `pht-train lock` from requirements.in")
    (train / "Dockerfile").write_text("ARG TORCH=pht-train-torch:0.2\nFROM ${TORCH}\n")
    tool("lock", train)
    assert versions(train / "requirements.txt") == {"edges": "1.0", "lungs": "1.0"}


@pytest.mark.usefixtures("index")
def test_a_train_whose_list_does_not_follow_from_its_inputs_is_not_built(
    train: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{train}/none.sock")
    for make in (
        lambda: None,  # there is no list yet
        lambda: (train / "requirements.in").write_text("lungs==1.0\n"),
        lambda: (train / "Dockerfile").write_text("FROM pht-train-torch:0.2\n"),
    ):
        make()
        said = " ".join(tool.error(ExitCode.DOCUMENT, "build", train).split())
        assert "does not follow from requirements.in" in said
        assert "pht-train lock" in said
        tool("lock", train)
        # Nothing stops it now but the engine that is not there.
        tool("build", train, code=ExitCode.UNAVAILABLE)


def test_a_list_that_was_written_by_hand_is_its_authors(
    train: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{train}/none.sock")
    (train / "requirements.in").unlink()
    (train / "requirements.txt").write_text(f"lungs==1.0 --hash=sha256:{'a' * 64}\n")
    tool("build", train, code=ExitCode.UNAVAILABLE)
    (train / "requirements.txt").write_text("lungs\n")
    assert "line 1" in tool.error(ExitCode.DOCUMENT, "build", train)
    assert "Write one" in tool.error(ExitCode.NOT_FOUND, "lock", train)


@pytest.mark.parametrize(
    ("base", "line", "said"),
    [
        ("pht-train-base:0.2", "numpy==99.0", f"numpy 99.0 (the base image has {NUMPY})"),
        ("pht-train-base:0.2", f"numpy=={NUMPY}", None),
        ("pht-train-base:0.2", "networkx==99.0", None),
        ("pht-train-torch:0.2", "networkx==99.0", f"networkx 99.0 (the base image has {NETWORKX})"),
        ("pht-train-torch-cuda:0.2", "NumPy==99.0", f"numpy 99.0 (the base image has {NUMPY})"),
        ("elsewhere.example/base:1", "numpy==99.0", None),
    ],
)
def test_no_list_puts_another_version_in_the_place_of_the_base_images(
    train: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch, base: str, line: str, said: str | None
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{train}/none.sock")
    (train / "requirements.in").unlink()
    (train / "Dockerfile").write_text(f"FROM {base}\n")
    (train / "requirements.txt").write_text(f"{line} --hash=sha256:{'a' * 64}\n")
    if said is None:
        tool("build", train, code=ExitCode.UNAVAILABLE)
        return
    message = " ".join(tool.error(ExitCode.DOCUMENT, "build", train).split())
    assert f"would replace what the base image has: {said}" in message
    assert "pht-train lock" in message


def test_what_only_fits_another_version_than_the_base_images_is_not_locked(
    train: Path, tool: Tool, index: Path
) -> None:
    wheel(index, name="picky", requires=["Requires-Dist: numpy>=99"])
    (train / "requirements.in").write_text("picky==1.0\n")
    assert "never changed" in " ".join(tool.error(ExitCode.UNAVAILABLE, "lock", train, "--upgrade").split())
    assert not (train / "requirements.txt").exists()


@pytest.mark.usefixtures("index")
def test_locking_takes_what_the_base_image_has_out_of_a_list(train: Path, tool: Tool) -> None:
    (train / "requirements.txt").write_text(f"numpy==99.0 --hash=sha256:{'a' * 64}\n")
    tool("lock", train)
    assert "numpy" not in versions(train / "requirements.txt")


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in HERE.parent.glob("*/requirements.txt") if path.parent != HERE)
)
def test_the_lists_of_the_shipped_trains_follow_from_their_inputs_and_replace_nothing(name: str) -> None:
    folder = read_folder(HERE.parent / name)
    check_own_list(folder.path, base_images(folder))


@pytest.mark.usefixtures("index")
def test_a_package_that_the_base_image_has_is_not_brought_again(train: Path, tool: Tool) -> None:
    (train / "requirements.in").write_text("numpy==99.0\n")
    assert "there already: numpy" in " ".join(tool.error(ExitCode.DOCUMENT, "lock", train).split())
