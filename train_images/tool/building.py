"""Builds a train's image with the docker command line.

The build context is the train's folder as it is, and beside it `algorithms/`, the project's package of Flower
ClientApps, so that a Dockerfile may say ``COPY algorithms ...`` (unless the folder has an `algorithms` of its own), and the
wheels that a `requirements.txt` there lists (`own_wheels.py`). Base images are made when they are missing. What the
Dockerfile does is its author's: nothing of it is judged here.

One Dockerfile makes both variants of an image where it names its base by an argument: ``ARG TORCH=pht-train-torch:0.2`` and
``FROM ${TORCH}``. For CUDA the argument is the other base.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

from policies.errors import NotFoundError, PhtError, UnavailableError, UsageError
from train_images.base.build import TORCH_IMAGES, Variant, build_base_images
from train_images.base.engine import inspect_image
from train_images.tool.folders import DOCKERFILE, TrainFolder
from train_images.tool.own_wheels import check_own_list, fetch_own_wheels

_FROM: Final = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)
# An argument with a default before the first FROM, which alone may stand in one.
_ARGUMENT: Final = re.compile(r"^\s*ARG\s+(\w+)=[\"']?([^\s\"']+)", re.IGNORECASE | re.MULTILINE)
_USE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TORCH_ARGUMENT: Final = "TORCH"
_STEP: Final = re.compile(r"^(Step \d+/\d+|#\d+ \[)")
_OURS: Final = "pht-train-"
_LAST_LINES: Final = 12
_NOT_COPIED: Final = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".venv")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """An image that was built.

    Attributes:
        tag: its name in the engine.
        image_id: ``sha256:<hex>``.
        size_bytes: with the layers it shares.
        seconds: what building took, base images not counted.
    """

    tag: str
    image_id: str
    size_bytes: int
    seconds: float


def build(folder: TrainFolder, tag: str, progress: Progress, variant: Variant = "cpu") -> Built:
    """Build a train's image.

    Args:
        folder: the train's.
        tag: the image's name.
        progress: called with one line per step.
        variant: the machines that it is for.

    Raises:
        UsageError: the train has no program, or its Dockerfile makes no other image for this variant.
        NotFoundError: the folder has no Dockerfile.
        DocumentError: the train's requirements.txt is not a closed list of hashed wheels, or not that of its inputs.
        TrustError: a wheel has other bytes than a list says.
        UnavailableError: no Docker engine answers, or a base image or a wheel cannot be had.
        PhtError: the build failed; with its last lines.
    """
    if folder.manifest.program is None:
        raise UsageError(
            f"{folder.manifest.name} has no program (interface station), so there is no image to build",
            hint=f"Go on with: pht-train pack {folder.path} OUT",
        )
    arguments = {} if variant == "cpu" else {_TORCH_ARGUMENT: TORCH_IMAGES[variant]}
    bases = base_images(folder, arguments)
    if not arguments.keys() <= _declared(_dockerfile(folder)).keys():
        raise UsageError(
            f"{folder.path / DOCKERFILE}: names no ARG {_TORCH_ARGUMENT}, so its image for {variant} would be the one for cpu",
            hint=f"Begin it with ARG {_TORCH_ARGUMENT}={TORCH_IMAGES['cpu']} and FROM ${{{_TORCH_ARGUMENT}}}.",
        )
    check_own_list(folder.path, bases)
    # First the engine: without one nothing else is worth saying.
    inspect_image(tag)
    if any(base.startswith(_OURS) for base in bases):
        build_base_images(progress, torch=False)
    for each, torch in TORCH_IMAGES.items():
        if torch in bases:
            build_base_images(progress, variant=each)
    began = time.monotonic()
    with build_context(folder.path) as context:
        if wheels := fetch_own_wheels(folder.path, context):
            progress(f"{folder.manifest.name}: {len(wheels)} wheels of its own")
        _docker_build(context, tag, arguments, progress)
    made = inspect_image(tag)
    if made is None:
        raise UnavailableError(f"{tag} is not in the engine after building it")
    return Built(tag, made.image_id, made.size_bytes, time.monotonic() - began)


def base_images(folder: TrainFolder, arguments: Mapping[str, str] = MappingProxyType({})) -> tuple[str, ...]:
    """Return what a train's Dockerfile builds on.

    Args:
        folder: the train's.
        arguments: of the build; what a Dockerfile says stands for those that are not given.

    Raises:
        NotFoundError: there is no Dockerfile.
    """
    text = _dockerfile(folder)
    declared = _declared(text)
    known = {**declared, **{name: value for name, value in arguments.items() if name in declared}}
    return tuple(
        _USE.sub(lambda use: known.get(use[1] or use[2], use[0]), named) for named in _FROM.findall(text)
    )


def _dockerfile(folder: TrainFolder) -> str:
    try:
        return (folder.path / DOCKERFILE).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise NotFoundError(
            f"{folder.path}: holds no {DOCKERFILE}",
            hint="Write one that starts with FROM pht-train-base:0.2.",
        ) from error


def _declared(text: str) -> dict[str, str]:
    """Return the arguments that may stand in a FROM, with their defaults."""
    first = _FROM.search(text)
    return dict(_ARGUMENT.findall(text[: first.start()] if first else text))


@contextmanager
def build_context(folder: Path) -> Iterator[Path]:
    """Yield a folder with everything that the Dockerfile may copy."""
    with tempfile.TemporaryDirectory(prefix="pht-train-") as made:
        context = Path(made) / "context"
        shutil.copytree(folder, context, ignore=_NOT_COPIED, symlinks=True)
        found = find_spec("algorithms")
        if found is not None and found.origin is not None and not (context / "algorithms").exists():
            shutil.copytree(Path(found.origin).parent, context / "algorithms", ignore=_NOT_COPIED)
        yield context


def _docker_build(context: Path, tag: str, arguments: Mapping[str, str], progress: Progress) -> None:
    command = ["docker", "build", "--force-rm", "--tag", tag, "--file", str(context / DOCKERFILE)]
    command += [*(f"--build-arg={name}={value}" for name, value in arguments.items()), str(context)]
    # Later versions would add a signed statement that makes an index of the image, of which there must be one.
    environment = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    lines: list[str] = []
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if _STEP.match(line):
                    progress(line.rstrip())
    except OSError as error:
        raise UnavailableError(
            "the docker command cannot be run", hint="Install and start Docker."
        ) from error
    if process.returncode != 0:
        last = "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
        raise PhtError(f"building {tag} failed:\n{last}", hint="Correct the Dockerfile or what it copies.")
