"""The base images' wheels: what the closed lists hold, and what is not taken."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename
from wheel_kit import wheel

from policies.errors import TrustError, UnavailableError
from train_images.base.lock import (
    BASE_LIST,
    HERE,
    TORCH_LISTS,
    is_current,
    lists_below,
    read_inputs,
    versions,
)
from train_images.base.wheels import IMAGE_OPTIONS, PLATFORMS, closed_list, fetch_wheels

LISTS = (BASE_LIST, *TORCH_LISTS)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip knows."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "index"


@pytest.mark.parametrize("name", LISTS)
def test_a_list_follows_from_its_inputs(name: str) -> None:
    assert is_current(HERE / name, lists_below(name)), "run: make lock-base"
    inputs = read_inputs((HERE / name).with_suffix(".in"))
    found = versions(HERE / name)
    for wanted in inputs.wanted:
        package, _, version = wanted.partition("==")
        assert found[package] == version.lstrip("=")
    assert not inputs.without & found.keys()


@pytest.mark.parametrize("name", LISTS)
def test_a_lists_every_file_fits_the_images_python(name: str) -> None:
    lines = [line for line in (HERE / name).read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(closed_list(HERE / name)) > 5
    for line in lines:
        requirement, _, file = line.partition("  # ")
        package, version, _, tags = parse_wheel_filename(file)
        assert versions(HERE / name)[package] == str(version)
        assert requirement.count("--hash=sha256:") == 1
        assert any(_fits(tag) for tag in tags), file


def _fits(tag: Tag) -> bool:
    python = tag.interpreter in {"py3", "cp311"} or (
        tag.abi == "abi3" and tag.interpreter in {"cp37", "cp39", "cp310"}
    )
    return python and (tag.platform == "any" or tag.platform in PLATFORMS)


def test_the_lists_on_torch_repeat_nothing_and_differ_in_cuda_alone() -> None:
    base = versions(HERE / BASE_LIST)
    cpu, cuda = (versions(HERE / name) for name in TORCH_LISTS)
    assert not base.keys() & (cpu.keys() | cuda.keys())
    assert (cpu.pop("torch"), cuda.pop("torch")) == ("2.13.0+cpu", "2.13.0")
    of_cuda = {name for name in cuda if name not in cpu}
    assert "nvidia-cudnn-cu13" in of_cuda
    assert all(re.match(r"nvidia-|cuda-toolkit$", name) for name in of_cuda)
    assert {name: cuda[name] for name in cpu} == cpu


def test_the_cpu_build_is_the_file_that_pytorch_published() -> None:
    (torch,) = (line for line in closed_list(HERE / TORCH_LISTS[0]) if line.startswith("torch=="))
    # The fragment of its address in https://download.pytorch.org/whl/cpu/torch/, as another project's list quotes it (seen 2026-11-23).
    assert torch.endswith("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b")


def test_a_wheel_that_changed_is_named_with_both_hashes(index: Path, tmp_path: Path) -> None:
    written_down = wheel(index)
    now = wheel(index, text="answer = 43\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"pht-tiny==1.0 --hash=sha256:{written_down}\n")
    with pytest.raises(TrustError) as caught:
        fetch_wheels(requirements, tmp_path / "wheels", "x:1 cannot be built")
    said = str(caught.value)
    assert said.startswith("x:1 cannot be built: pht-tiny==1.0")
    assert f"{now[:16]}" in said
    assert f"{written_down[:16]}" in said
    assert not list((tmp_path / "wheels").glob("*.whl"))


def test_of_two_builds_of_one_version_the_plain_one_is_taken_where_three_signs_say_so(
    index: Path, tmp_path: Path
) -> None:
    """A build for CPUs is called 1.0+cpu, which pip holds for a newer 1.0."""
    plain = wheel(index)
    wheel(index, text="answer = 41\n", version="1.0+cpu")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"pht-tiny===1.0 --hash=sha256:{plain}\n")
    assert fetch_wheels(requirements, tmp_path / "wheels", "x") == ("pht_tiny-1.0-py3-none-any.whl",)
    requirements.write_text(f"pht-tiny==1.0 --hash=sha256:{plain}\n")
    with pytest.raises(TrustError):
        fetch_wheels(requirements, tmp_path / "others", "x")
    assert closed_list(HERE / TORCH_LISTS[1])[-1].startswith("torch===2.13.0 ")


def test_a_wheel_that_does_not_exist_is_a_clear_error(index: Path, tmp_path: Path) -> None:
    index.mkdir()
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\npht-no-such-project==1.0 --hash=sha256:" + "a" * 64 + "\n")
    with pytest.raises(UnavailableError, match=r"x cannot be built: .*pht-no-such-project") as caught:
        fetch_wheels(requirements, tmp_path / "wheels", "x cannot be built")
    assert "pip download" in caught.value.hint


def test_the_install_inside_an_image_refuses_other_bytes_too(index: Path, tmp_path: Path) -> None:
    """The Dockerfiles' own options, on a context in which a wheel was changed after it was fetched."""
    digest = wheel(index)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"pht-tiny==1.0 --hash=sha256:{digest}\n")
    fetch_wheels(requirements, tmp_path / "wheels", "x")
    options = ["--no-index", f"--find-links={tmp_path / 'wheels'}", "--no-deps", "--require-hashes"]
    for name in ("Dockerfile", "Dockerfile.torch"):
        (install,) = re.findall(r"pip install[^&]*", (HERE / name).read_text())
        for option in ("--no-index", "--find-links=/wheels", "--no-deps", "--require-hashes"):
            assert option in install.split()
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        f"--target={tmp_path / 'to'}",
        "-r",
        str(requirements),
    ]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (index / "pht_tiny-1.0-py3-none-any.whl").unlink()
    fetched = tmp_path / "wheels" / "pht_tiny-1.0-py3-none-any.whl"
    fetched.write_bytes(fetched.read_bytes() + b"x")
    assert hashlib.sha256(fetched.read_bytes()).hexdigest() != digest
    again = subprocess.run([*command, "--upgrade"], check=False, capture_output=True, text=True)
    assert again.returncode != 0
    assert "DO NOT MATCH THE HASHES" in again.stderr


def test_pip_is_told_the_images_machine() -> None:
    assert "--platform=manylinux_2_36_x86_64" in IMAGE_OPTIONS
    assert "--platform=manylinux_2_37_x86_64" not in IMAGE_OPTIONS
