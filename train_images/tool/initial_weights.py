"""Makes a train's initial weights by running the image's own program, without network.

The image says in ``/opt/pht/train.json`` what makes them::

    {"interface": "flower", "clientapp": "my_train:app", "initial_weights": "my_train:initial_weights"}

The function takes nothing and returns names with arrays: a dict of numpy arrays, a torch ``state_dict``, or a module that
has one. What comes out is a safetensors file; its digest is what an order names. The container is the image as stations
load it, with a read-only root, no network, no capabilities and no mount; the file comes over its standard output.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.documents import digest_of_file
from policies.errors import DocumentError, PhtError, StorageError, UnavailableError, UsageError
from policies.wire.arrays import ArrayLayout, read_layout
from train_images.tool.description import DESCRIPTION, INITIAL_WEIGHTS, require_interface
from train_images.tool.folders import PackedTrain
from train_images.tool.sandbox_home import SandboxHome

_TIMEOUT_S: Final = 600
_LAST_BYTES: Final = 2000
_HOME: Final = "/tmp"  # noqa: S108 - the container's own, as stations mount it
_PYTHON: Final = "/opt/train/bin/python"

# Runs in the container. What the train prints goes to the log, so that nothing but the file is on standard output.
_PROGRAM: Final = """
import importlib, json, os
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
with open("/opt/pht/train.json", encoding="utf-8") as file:
    module, _, name = json.load(file)["initial_weights"].partition(":")
made = getattr(importlib.import_module(module), name)()
if hasattr(made, "state_dict"):
    made = made.state_dict()
if any(hasattr(value, "detach") for value in made.values()):
    from safetensors.torch import save
    made = {key: value.detach().cpu().contiguous().clone() for key, value in made.items()}
else:
    import numpy
    from safetensors.numpy import save
    made = {key: numpy.array(value, order="C") for key, value in made.items()}
out.write(save(made))
out.flush()
"""


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights, checked.

    Attributes:
        path: the file.
        digest: what an order names.
        layout: its tensors.
    """

    path: Path
    digest: str
    layout: ArrayLayout

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.elements for tensor in self.layout.tensors)


def read_weights(path: Path) -> Weights:
    """Read and check a file of weights.

    Raises:
        DocumentError: it is no safetensors file as stations read it.
    """
    try:
        layout = read_layout(path)
        return Weights(path, digest_of_file(path), layout)
    except PhtError as error:
        raise DocumentError(
            f"{path.name}: {error.message}", hint="Give weights as a plain safetensors file."
        ) from error


def can_make_weights(train: PackedTrain) -> bool:
    """Whether the image names a program for its initial weights."""
    return isinstance(require_interface(train).get(INITIAL_WEIGHTS), str)


def make_weights(train: PackedTrain, home: SandboxHome, out: Path) -> Weights:
    """Run the image's program for its initial weights.

    Args:
        train: packed.
        home: with the launcher that brings the verified image into the engine.
        out: the file; replaced when it is there.

    Raises:
        UsageError: the image names no such program.
        UnavailableError: no Docker engine answers.
        PhtError: the program failed; with the end of what it printed.
        DocumentError: what it made is no safetensors file as stations read it.
    """
    if not can_make_weights(train):
        raise UsageError(
            f"the image's /{DESCRIPTION} names no {INITIAL_WEIGHTS}",
            hint='Add "initial_weights": "module:function" to it, or give weights of your own.',
        )
    image_id = home.launcher.load_image(train.index.config.digest).image_id
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _run(_command(image_id, train, home.engine), file.fileno())
        made = read_weights(part)
        part.replace(out)
    except OSError as error:
        raise StorageError(f"{out.name}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return Weights(out, made.digest, made.layout)


def _command(image_id: str, train: PackedTrain, engine: Path) -> list[str]:
    resources = train.manifest.resources
    tmpfs = "rw,nosuid,nodev,noexec,mode=1777"
    return [
        "docker", "--host", f"unix://{engine}", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges:true", "--user", "65534:65534", "--env", f"HOME={_HOME}",
        "--env", "USER=train", "--env", "LOGNAME=train", "--env", "PYTHONDONTWRITEBYTECODE=1",
        "--tmpfs", f"{_HOME}:{tmpfs}", "--tmpfs", f"/train/scratch:{tmpfs}",
        "--memory", f"{resources.memory_mib}m", "--memory-swap", f"{resources.memory_mib}m",
        "--pids-limit", str(resources.pids), "--entrypoint", _PYTHON, image_id, "-c", _PROGRAM,
    ]  # fmt: skip


def _run(command: list[str], stdout: int) -> None:
    try:
        done = subprocess.run(command, check=False, stdout=stdout, stderr=subprocess.PIPE, timeout=_TIMEOUT_S)
    except OSError as error:
        raise UnavailableError(
            "the docker command cannot be run", hint="Install and start Docker."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PhtError(f"making the initial weights took more than {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        # The researcher's own train on the researcher's own machine: its words may be shown.
        text = done.stderr[-_LAST_BYTES:].decode("utf-8", "replace").strip()
        raise PhtError(f"making the initial weights failed (exit code {done.returncode}):\n{text}")
