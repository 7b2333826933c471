"""Makes the images that trains are built on: `pht-train-base` and `pht-train-torch`.

Idempotent: an image whose label holds the hash of its inputs is not built again. The wheels come through pip as this machine
has it configured, at exactly the versions of the requirements files and without resolving, so nothing brings CUDA packages.
Where no registry can be reached, the operating system under them is made with debootstrap and takes the place of the real
base under the real base's name. Uses the docker command line; starts no container.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import UnavailableError
from train_images.base.debian import make_base_image
from train_images.base.engine import INPUTS_LABEL, inspect_image, run_or_explain

HERE: Final = Path(__file__).parent
RUNTIME: Final = HERE.parent / "runtime" / "pht_runtime"
SYSTEM_IMAGE: Final = "python:3.11-slim-bookworm"
BASE_IMAGE: Final = "pht-train-base:0.2"
TORCH_IMAGE: Final = "pht-train-torch:0.2"

_TORCH_CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
_BUILD_TIMEOUT_S: Final = 1800

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """One image as it is in the engine now.

    Attributes:
        tag: its name.
        image_id: ``sha256:<hex>``.
        size_bytes: as the engine counts it, with the layers it shares.
        seconds: what making it took, 0 when it was there already.
        reused: whether it was there already.
    """

    tag: str
    image_id: str
    size_bytes: int
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True)
class _Recipe:
    tag: str
    parent: str
    dockerfile: str
    requirements: str
    with_runtime: bool


_RECIPES: Final = (
    _Recipe(BASE_IMAGE, SYSTEM_IMAGE, "Dockerfile", "requirements.txt", with_runtime=True),
    _Recipe(TORCH_IMAGE, BASE_IMAGE, "Dockerfile.torch", "requirements-torch.txt", with_runtime=False),
)


def build_base_images(progress: Progress, *, torch: bool = True) -> list[BuiltImage]:
    """Make sure that the base images are there and made of what lies in this folder.

    Args:
        progress: called with one line per step.
        torch: also the image with torch and MONAI.

    Returns:
        The images in the order in which they build on each other.

    Raises:
        UnavailableError: the engine, the base or a wheel cannot be had; the hint says what to do.
    """
    make_base_image(SYSTEM_IMAGE, progress)
    return [_build(recipe, progress) for recipe in _RECIPES if torch or recipe.tag != TORCH_IMAGE]


def _build(recipe: _Recipe, progress: Progress) -> BuiltImage:
    inputs = _inputs_hash(recipe)
    present = inspect_image(recipe.tag)
    if present is not None and present.inputs == inputs:
        progress(f"{recipe.tag}: already built")
        return BuiltImage(recipe.tag, present.image_id, present.size_bytes, 0.0, reused=True)
    began = time.monotonic()
    with _context(recipe, progress) as context:
        progress(f"{recipe.tag}: building")
        command = [
            "docker",
            "build",
            "--quiet",
            "--force-rm",
            "--network=none",
            "--label",
            f"{INPUTS_LABEL}={inputs}",
        ]
        command += ["--tag", recipe.tag, "--file", str(context / recipe.dockerfile), str(context)]
        run_or_explain(command, f"building {recipe.tag} failed", timeout_s=_BUILD_TIMEOUT_S)
    built = inspect_image(recipe.tag)
    if built is None:
        raise UnavailableError(f"{recipe.tag} is not in the engine after building it")
    seconds = time.monotonic() - began
    progress(f"{recipe.tag}: built in {seconds:.0f} s, {built.size_bytes / 1e6:.0f} MB")
    return BuiltImage(recipe.tag, built.image_id, built.size_bytes, seconds, reused=False)


@contextmanager
def _context(recipe: _Recipe, progress: Progress) -> Iterator[Path]:
    """Yield a folder with everything the Dockerfile copies."""
    with tempfile.TemporaryDirectory(prefix="pht-image-") as made:
        context = Path(made)
        for name in (recipe.dockerfile, recipe.requirements, "trim.py"):
            shutil.copyfile(HERE / name, context / name)
        if recipe.with_runtime:
            shutil.copytree(RUNTIME, context / "pht_runtime", ignore=shutil.ignore_patterns("__pycache__"))
        progress(f"{recipe.tag}: fetching wheels")
        download_wheels(HERE / recipe.requirements, context / "wheels")
        yield context


def download_wheels(requirements: Path, into: Path) -> None:
    """Fetch exactly the named wheels, torch in its CPU build.

    Raises:
        UnavailableError: one of them cannot be had.
    """
    lines = [
        line for line in requirements.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    torch = [line for line in lines if line.startswith("torch==")]
    others = [line for line in lines if line not in torch]
    _pip_download(others, into)
    if not torch:
        return
    _pip_download(torch, into, must_work=False)
    if not list(into.glob("torch-*+cpu-*.whl")):
        # The public registry's torch is the CUDA build; PyTorch's own index has the other one.
        for wheel in into.glob("torch-*.whl"):
            wheel.unlink()
        _pip_download(torch, into, "--index-url", _TORCH_CPU_INDEX)


def _pip_download(names: Sequence[str], into: Path, *options: str, must_work: bool = True) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(into), *options, *names]
    if must_work:
        run_or_explain(
            command,
            "the wheels of a train's base image cannot be fetched",
            hint="Check that `pip download` works here (index, proxy, certificate).",
            timeout_s=_BUILD_TIMEOUT_S,
        )
    else:
        subprocess.run(command, check=False, capture_output=True, timeout=_BUILD_TIMEOUT_S)


def _inputs_hash(recipe: _Recipe) -> str:
    """Hash what an image is made of: its parent, its Dockerfile, its closed list of wheels, and the runtime."""
    parent = inspect_image(recipe.parent)
    parts = [("parent", (parent.image_id if parent else "").encode())]
    parts += [
        (name, (HERE / name).read_bytes()) for name in (recipe.dockerfile, recipe.requirements, "trim.py")
    ]
    if recipe.with_runtime:
        parts.extend((f"runtime/{path.name}", path.read_bytes()) for path in sorted(RUNTIME.glob("*.py")))
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
