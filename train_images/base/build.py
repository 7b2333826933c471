"""Makes the images that trains are built on: `pht-train-base`, and on it `pht-train-torch` for CPUs or for CUDA.

Idempotent: an image whose label holds the hash of its inputs is not built again. The wheels are those of the closed lists
(`wheels.py`), fetched here and installed inside the build by their hashes, without a network and without resolving. Both
variants of the torch image come from one Dockerfile and differ in their list alone. Where no registry can be reached, the
operating system under them is made with debootstrap and takes the place of the real base under the real base's name. Uses the
docker command line; starts no container.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from policies.errors import UnavailableError
from policies.files import exclusive_lock
from train_images.base.debian import make_base_image
from train_images.base.engine import INPUTS_LABEL, inspect_image, run_or_explain
from train_images.base.wheels import fetch_wheels

HERE: Final = Path(__file__).parent
RUNTIME: Final = HERE.parent / "runtime" / "pht_runtime"
SYSTEM_IMAGE: Final = "python:3.11-slim-bookworm"
BASE_IMAGE: Final = "pht-train-base:0.2"
TORCH_IMAGE: Final = "pht-train-torch:0.2"
TORCH_CUDA_IMAGE: Final = "pht-train-torch-cuda:0.2"

Variant = Literal["cpu", "cuda"]
"""As image variants are called in a train's manifest."""

TORCH_IMAGES: Final[Mapping[Variant, str]] = MappingProxyType({"cpu": TORCH_IMAGE, "cuda": TORCH_CUDA_IMAGE})

LOCK: Final = Path(tempfile.gettempdir()) / f"pht-base-images-{os.getuid()}.lock"

_STAGE_LABEL: Final = "nl.pht.stage"
_BUILD_TIMEOUT_S: Final = 3600
_PRUNE_TIMEOUT_S: Final = 300

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
    wheels: str
    with_runtime: bool = False
    variant: Variant | None = None


_BASE: Final = _Recipe(BASE_IMAGE, SYSTEM_IMAGE, "Dockerfile", "requirements.txt", with_runtime=True)
_TORCH: Final[Mapping[Variant, _Recipe]] = MappingProxyType(
    {
        variant: _Recipe(
            tag,
            BASE_IMAGE,
            "Dockerfile.torch",
            f"requirements-torch-{variant}.txt",
            variant=variant,
        )
        for variant, tag in TORCH_IMAGES.items()
    }
)


def build_base_images(
    progress: Progress, *, torch: bool = True, variant: Variant = "cpu", system: str | None = None
) -> list[BuiltImage]:
    """Make sure that the base images are there and made of what lies in this folder.

    Args:
        progress: called with one line per step.
        torch: also the image with torch and MONAI.
        variant: for which machines that one is.
        system: image to take as the operating system, pinned by its digest (``python@sha256:...``); without it the one that is
            there or what the registry has under the public name.

    Returns:
        The images in the order in which they build on each other.

    Raises:
        UnavailableError: the engine, the base or a wheel cannot be had; the hint says what to do.
        TrustError: a wheel has other bytes than the closed list says.
        UsageError: `system` is not pinned by a digest.
    """
    # One build at a time: two of the same share their stages, and the first to end would take the other's away.
    with exclusive_lock(LOCK):
        make_base_image(SYSTEM_IMAGE, progress, pinned=system)
        return [_build(recipe, progress) for recipe in (_BASE, *([_TORCH[variant]] if torch else []))]


def _build(recipe: _Recipe, progress: Progress) -> BuiltImage:
    inputs = _inputs_hash(recipe)
    present = inspect_image(recipe.tag)
    if present is not None and present.inputs == inputs:
        progress(f"{recipe.tag}: already built")
        return BuiltImage(recipe.tag, present.image_id, present.size_bytes, 0.0, reused=True)
    began = time.monotonic()
    with _context(recipe, progress) as context:
        progress(f"{recipe.tag}: building")
        command = ["docker", "build", "--quiet", "--force-rm", "--network=none"]
        command += ["--label", f"{INPUTS_LABEL}={inputs}"]
        if recipe.variant is not None:
            command += [f"--build-arg=VARIANT={recipe.variant}", f"--build-arg=INPUTS={inputs}"]
        command += ["--tag", recipe.tag, "--file", str(context / recipe.dockerfile), str(context)]
        run_or_explain(command, f"building {recipe.tag} failed", timeout_s=_BUILD_TIMEOUT_S)
    _drop_stage(inputs)
    built = inspect_image(recipe.tag)
    if built is None:
        raise UnavailableError(f"{recipe.tag} is not in the engine after building it")
    seconds = time.monotonic() - began
    progress(f"{recipe.tag}: built in {seconds:.0f} s, {built.size_bytes / 1e6:.0f} MB")
    return BuiltImage(recipe.tag, built.image_id, built.size_bytes, seconds, reused=False)


def _drop_stage(inputs: str) -> None:
    """Remove the stage that the classic builder leaves behind, of this build and no other."""
    subprocess.run(
        ["docker", "image", "prune", "--force", "--filter", f"label={_STAGE_LABEL}={inputs}"],
        check=False,
        capture_output=True,
        timeout=_PRUNE_TIMEOUT_S,
    )


@contextmanager
def _context(recipe: _Recipe, progress: Progress) -> Iterator[Path]:
    """Yield a folder with everything the Dockerfile copies."""
    with tempfile.TemporaryDirectory(prefix="pht-image-") as made:
        context = Path(made)
        for name in (recipe.dockerfile, recipe.wheels, "trim.py"):
            shutil.copyfile(HERE / name, context / name)
        if recipe.with_runtime:
            shutil.copytree(RUNTIME, context / "pht_runtime", ignore=shutil.ignore_patterns("__pycache__"))
        progress(f"{recipe.tag}: fetching wheels")
        fetch_wheels(HERE / recipe.wheels, context / "wheels", f"{recipe.tag} cannot be built")
        yield context


def _inputs_hash(recipe: _Recipe) -> str:
    """Hash what an image is made of: its parent, its Dockerfile, its closed list of wheels, and the runtime."""
    parent = inspect_image(recipe.parent)
    parts = [("parent", (parent.image_id if parent else "").encode())]
    parts += [(name, (HERE / name).read_bytes()) for name in (recipe.dockerfile, recipe.wheels, "trim.py")]
    if recipe.with_runtime:
        parts.extend((f"runtime/{path.name}", path.read_bytes()) for path in sorted(RUNTIME.glob("*.py")))
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
