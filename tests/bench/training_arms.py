"""The two sides of `bench_sandbox_training`: one train's image in a station's sandbox, and by a plain `docker run`.

Both are the same image (the shipped train with a clock in it), read the same cohort's files, and are asked by the same `TrainSession` over
a socket of their own. What differs is the confinement: outside there is the engine's default of everything (capabilities, a writable root, a
network), and no filter of system calls at all.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file
from segmentation_kit import ball, write_case, write_cohort
from trains_kit import spec_of

from policies.documents import digest_of_file
from station.sandbox.engine import hardening
from station.sandbox.gpu.model import EVERY, GpuNeed, GpuTerms
from station.sandbox.gpu.nvml import discover
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import (
    ContainerSpec,
    ContainerStatus,
    ReplyLimits,
    StartedContainer,
    TrainReply,
    TrainRequest,
)
from train_images.base.build import Variant
from train_images.tool.building import build
from train_images.tool.folders import PackedTrain, read_folder
from train_images.tool.measuring import MeasuringLauncher
from train_images.tool.packing import pack
from train_images.tool.sandbox_home import SandboxHome, sandbox_home

HERE: Final = Path(__file__).parent
TRAIN: Final = HERE.parents[1] / "train_images" / "ct-segmentation"
TAG: Final = f"pht-bench-{os.getpid()}-ct-segmentation:1"
CLOCK: Final = "training_clock"
PACKAGES: Final = "/opt/train/lib/python3.11/site-packages"

SHAPE: Final = (192, 192, 60)
SPACING_MM: Final = (1.6, 1.6, 2.5)
CASES: Final = 4
ROUND_TIMEOUT_S: Final = 1800.0
_WALL_CLOCK_S: Final = 6 * 3600

_HOOK: Final = "nvidia-container-runtime-hook"
_USER: Final = 1000


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of one side took, and which work it was.

    Attributes:
        clock: what `training_clock` read, without the prefix of its names.
        exchange_s: from the request's first byte to the reply's last, as the station waits.
        loss: as the train told it.
        weights: SHA-256 of the reply's arrays.
    """

    clock: dict[str, Any]
    exchange_s: float
    loss: float
    weights: str

    @property
    def seconds(self) -> float:
        """Of training, inside the process."""
        return float(self.clock["seconds"])

    @property
    def processor_s(self) -> float:
        """Of all threads."""
        return float(self.clock["user_s"] + self.clock["system_s"])


@dataclass(frozen=True, slots=True)
class Side:
    """A warm train."""

    session: TrainSession
    request: TrainRequest
    work: Path

    def train(self) -> Round:
        """Train the round once more, from the same weights."""
        limits = ReplyLimits(self.work / "reply.safetensors", 1 << 30)
        reply = self.session.exchange(self.request, limits, timeout_s=ROUND_TIMEOUT_S)
        if not isinstance(reply, TrainReply) or reply.arrays is None:
            raise SystemExit(f"a round failed: {reply}\n{self.session.logs(4000)}")
        clock = {
            name.removeprefix("clock_"): value
            for name, value in reply.metrics.items()
            if name.startswith("clock_")
        }
        found = Round(clock, reply.seconds, float(reply.metrics["loss"]), digest_of_file(reply.arrays))
        reply.arrays.unlink()
        return found


class PlainLauncher(MeasuringLauncher):
    """Starts a container by `docker run`, without what a station's launcher puts about it."""

    def __init__(self, inner: MeasuringLauncher, tag: str, gpu: str | None, *, limits: bool) -> None:
        super().__init__(inner)
        self._tag, self._gpu, self._limits = tag, gpu, limits

    def start(self, spec: ContainerSpec) -> StartedContainer:
        command = ["docker", "run", "--detach", f"--name={_name(spec.run_id)}", f"--user={_USER}"]
        command += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
        command += [f"--volume={spec.cohort_dir}:{hardening.DATA}"]
        command += [f"--volume={spec.control_dir}:{hardening.CONTROL}", "--env=HOME=/tmp", "--env=USER=train"]
        # As many threads: outside a quota libraries would count the machine's processors.
        command += [f"--env={each}" for each in hardening.environment(spec) if "_NUM_THREADS" in str(each)]
        if self._limits:
            command += [f"--cpus={spec.cpus}", f"--memory={spec.memory_bytes}"]
        if self._gpu is not None:
            command += [f"--gpus=device={self._gpu}"]
        program, *rest = hardening.COMMAND
        container = _docker([*command, f"--entrypoint={program}", self._tag, *rest])
        return StartedContainer(
            run_id=spec.run_id,
            container_id=container,
            image_id=_docker(["docker", "inspect", "--format={{.Image}}", container]),
            uid=_USER,
            peer_uid=_USER,
        )

    def status(self, run_id: str) -> ContainerStatus:
        text = _docker(["docker", "inspect", "--format={{json .State}}", _name(run_id)])
        state = json.loads(text)
        if state["Running"]:
            return ContainerStatus(run_id=run_id, state="running")
        return ContainerStatus(run_id=run_id, state="exited", exit_code=state["ExitCode"])

    def wait(self, run_id: str, timeout_s: float) -> ContainerStatus:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["docker", "wait", _name(run_id)], check=False, capture_output=True, timeout=timeout_s
            )
        return self.status(run_id)

    def logs(self, run_id: str, max_bytes: int) -> str:
        return _docker(["docker", "logs", _name(run_id)])[-max_bytes:]

    def stop(self, run_id: str) -> None:
        subprocess.run(["docker", "rm", "-f", _name(run_id)], check=False, capture_output=True, timeout=60)


def _name(run_id: str) -> str:
    return f"{run_id}-{os.getpid()}"


def _docker(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def gpu_here() -> tuple[bool, str]:
    """Say whether both sides can have a GPU, and in a line why or why not."""
    found = discover()
    usable = [each for each in found.devices if not each.problem]
    if not usable:
        return (
            False,
            f"no NVIDIA GPU here ({found.problem or ('none usable' if found.driver else 'no driver')}): measured on the processor",
        )
    if shutil.which(_HOOK) is None:
        return False, f"a GPU, but no {_HOOK} for containers: measured on the processor"
    return True, f"on {usable[0].name}, driver {found.driver}"


def packed(scratch: Path, variant: Variant) -> PackedTrain:
    """Build and pack the shipped train with the clock in it."""
    folder = scratch / "train"
    shutil.copytree(TRAIN, folder)
    shutil.copy(HERE / f"{CLOCK}.py", folder)
    description = json.loads((folder / "train.json").read_text())
    (folder / "train.json").write_text(json.dumps(description | {"clientapp": f"{CLOCK}:app"}))
    with (folder / "Dockerfile").open("a") as file:
        file.write(f"\nCOPY {CLOCK}.py {PACKAGES}/{CLOCK}.py\n")
    train = read_folder(folder)
    build(train, TAG, lambda _line: None, variant)
    return pack(train, TAG, scratch / "bundle", variant).train


def lay_cohort(folder: Path) -> None:
    """Write volumes of 307x307x150 mm, a ball marked in each."""
    folder.mkdir(parents=True)
    cases = []
    for number in range(CASES):
        random = np.random.default_rng(number)
        centre = [random.uniform(60, size * step - 60) for size, step in zip(SHAPE, SPACING_MM, strict=True)]
        inside = ball(SHAPE, SPACING_MM, centre, random.uniform(12, 18))
        image = np.where(inside, 40, -800) + random.normal(0, 40, SHAPE)
        affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
        cases.append(write_case(folder, f"t{number}", image, inside, affine))
    write_cohort(folder, {"training": cases})


def start_weights(path: Path, width: int) -> None:
    """Write untrained weights of a UNet of some width: which network trains follows from them."""
    import torch

    from algorithms.ct_segmentation.networks import unet

    torch.manual_seed(1)
    save_file({name: tensor.numpy().copy() for name, tensor in unet(2, width).state_dict().items()}, path)


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides get.

    Attributes:
        settings: hyperparameters.
        width: channels of the network's first level.
        gpu: with a device, the same for both.
        cpus: processors, and as many threads; None for what the manifest asks for.
        limits: the container outside gets the limits on processors and memory too.
    """

    settings: dict[str, Any]
    width: int
    gpu: bool
    cpus: float | None
    limits: bool


@contextmanager
def sides(train: PackedTrain, terms: Terms) -> Iterator[dict[str, Side]]:
    """Yield both, started and idle."""
    devices = GpuTerms(devices=(EVERY,)) if terms.gpu else None
    with sandbox_home(train, gpu=devices) as home:
        cohort = home.cohorts / "cohort"
        lay_cohort(cohort)
        weights = home.work / "start.safetensors"
        start_weights(weights, terms.width)
        request = TrainRequest("train", 1, terms.settings, weights)
        changes: dict[str, Any] = {"wall_clock_s": _WALL_CLOCK_S}
        if terms.cpus is not None:
            changes["cpus"] = terms.cpus
        spec = spec_of(train, home, "bench-inside", gpu=GpuNeed() if terms.gpu else None, **changes)
        with _session(home.launcher, spec) as inside:
            plain = PlainLauncher(home.launcher, TAG, _leased(home, spec), limits=terms.limits)
            beside = spec_of(train, home, "bench-outside", **changes)
            # Ends first: a device is given back when nobody is on it.
            with _session(plain, beside) as outside:
                yield {
                    "inside": Side(inside, request, home.work),
                    "outside": Side(outside, request, home.work),
                }


@contextmanager
def _session(launcher: MeasuringLauncher, spec: ContainerSpec) -> Iterator[TrainSession]:
    session = TrainSandbox(launcher).start(spec)
    try:
        yield session
    finally:
        session.finish()


def _leased(home: SandboxHome, spec: ContainerSpec) -> str | None:
    mine = [each.uuid for each in home.launcher.gpus().devices if each.run_id == spec.run_id]
    return mine[0] if mine else None
