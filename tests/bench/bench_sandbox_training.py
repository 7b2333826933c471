"""What the sandbox costs a training: patches per second of the CT segmentation train inside it, against the same code outside.

    python -m tests.bench.bench_sandbox_training [--rounds 7] [--width 8] [--output FILE]

Inside: the packed image in a station's own sandbox, with all its restrictions, asked over its socket. Outside: the same image by plain
`docker run` as root with none of them (no limits, no seccomp, all capabilities, a writable root), its runtime called without a socket. Both train the
same round in turn on the same volumes and stay warm; the first of each counts for nothing, and their updates must be equal, so that the
same work was done. Told are medians by the clock and their ratio; what else the machine does disturbs it, so its load stands beside it.
On the CPU: no container here is given a device.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segmentation_kit import CONFIG, make_case, write_cohort

from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import MIB, ContainerSpec, ReplyLimits, TrainReply, TrainRequest
from train_images.tool.building import build
from train_images.tool.folders import PackedTrain, read_bundle, read_folder
from train_images.tool.packing import pack
from train_images.tool.sandbox_home import SandboxHome, sandbox_home

TARGET: Final = 0.97
"""Throughput inside within 3 % of that outside."""
TRAIN: Final = Path(__file__).parents[2] / "train_images" / "ct-segmentation"
TAG: Final = "pht-bench-ct-segmentation:1"
CASES: Final = 4
SETTINGS: Final = {name: value for name, value in CONFIG.items() if name != "server-round"} | {
    "patches_per_case": 8
}

_OUTSIDE: Final = """
import json, sys, time
import numpy as np
from pht_runtime.frames import Request
from pht_runtime.flower import FlowerTrain
train = FlowerTrain("algorithms.ct_segmentation.client_app:app", {})
head = {"type": "train", "id": 1, "round": 1, "config": json.loads(sys.argv[1])}
for _ in sys.stdin:
    began = time.monotonic()
    reply = train.answer(Request(head, "/weights/start.safetensors"))
    took = time.monotonic() - began
    total = float(sum(np.abs(array.astype(np.float64)).sum() for array in reply.arrays.values()))
    print(json.dumps({"seconds": took, "sum": total}), flush=True)
"""


@contextmanager
def inside(train: PackedTrain, home: SandboxHome) -> Iterator[TrainSession]:
    """Yield the train in the sandbox, on a cohort."""
    cohort = home.cohorts / "cohort"
    cohort.mkdir(parents=True)
    lay(cohort)
    resources = train.manifest.resources
    spec = ContainerSpec(
        run_id="bench-training",
        image_config_digest=train.index.config.digest,
        cohort_dir=str(cohort),
        control_dir=str(home.control / "run"),
        memory_bytes=resources.memory_mib * MIB,
        cpus=float(os.cpu_count() or 1),
        pids=resources.pids,
        scratch_bytes=resources.scratch_mib * MIB,
        wall_clock_s=3600,
    )
    session = TrainSandbox(home.launcher).start(spec)
    try:
        yield session
    finally:
        session.finish()


@contextmanager
def outside(cohort: Path, weights: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield the same image without a sandbox; a line on its standard input is a round."""
    command = ["docker", "run", "--rm", "-i", "--privileged", "--security-opt=seccomp=unconfined", "--user=0"]
    command += [f"--volume={cohort}:/train/data:ro", f"--volume={weights.parent}:/weights:ro"]
    command += [
        "--workdir=/opt/pht",
        "--entrypoint=/opt/train/bin/python",
        TAG,
        "-W",
        "ignore",
        "-c",
        _OUTSIDE,
    ]
    with subprocess.Popen(
        [*command, json.dumps(SETTINGS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()


def lay(folder: Path) -> None:
    """Write the cohort; equal each time."""
    write_cohort(folder, {"training": [make_case(folder, f"t{number}") for number in range(CASES)]})


def start_weights(path: Path, width: int) -> None:
    """Write untrained weights of a UNet of some width: which network trains follows from them."""
    import torch

    from algorithms.ct_segmentation.networks import unet

    torch.manual_seed(1)
    save_file({name: tensor.numpy().copy() for name, tensor in unet(2, width).state_dict().items()}, path)


def measure(rounds: int, width: int, scratch: Path) -> dict[str, Any]:
    """Train in turn; returns seconds and the ratio."""
    folder = read_folder(TRAIN)
    build(folder, TAG, lambda _line: None)
    pack(folder, TAG, scratch / "bundle")
    train = read_bundle(scratch / "bundle")
    weights = scratch / "weights" / "start.safetensors"
    plain = scratch / "cohort"
    weights.parent.mkdir()
    plain.mkdir()
    start_weights(weights, width)
    lay(plain)
    seconds: dict[str, list[float]] = {"inside": [], "outside": []}
    with sandbox_home(train) as home, inside(train, home) as session, outside(plain, weights) as process:
        for number in range(rounds + 1):
            limits = ReplyLimits(home.work / "reply.safetensors", 1 << 30)
            reply = session.exchange(TrainRequest("train", 1, SETTINGS, weights), limits, timeout_s=900.0)
            if not isinstance(reply, TrainReply) or reply.arrays is None:
                raise SystemExit(f"the train inside failed: {reply}\n{session.logs(4000)}")
            total = float(
                sum(np.abs(array.astype(np.float64)).sum() for array in load_file(reply.arrays).values())
            )
            reply.arrays.unlink()
            answer = _ask(process)
            if abs(answer["sum"] - total) > 1e-6 * total:
                raise SystemExit(f"not the same work: {total} inside, {answer['sum']} outside")
            if number:
                seconds["inside"].append(reply.seconds)
                seconds["outside"].append(answer["seconds"])
    medians = {where: statistics.median(values) for where, values in seconds.items()}
    patches = CASES * int(SETTINGS["patches_per_case"])
    return {
        "patches_per_second": {where: patches / value for where, value in medians.items()},
        "seconds": seconds,
        "ratio": medians["outside"] / medians["inside"],
        "spread": {where: max(values) / min(values) for where, values in seconds.items()},
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
        "target": TARGET,
    }


def _ask(process: subprocess.Popen[str]) -> dict[str, float]:
    if process.stdin is None or process.stdout is None:
        raise SystemExit("the container outside has no pipes")
    process.stdin.write("round\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("the train outside ended")
    found: dict[str, float] = json.loads(line)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=8, help="channels of the UNet's first level")
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="pht-bench-training-") as scratch:
            found = measure(choices.rounds, choices.width, Path(scratch))
    finally:
        subprocess.run(["docker", "rmi", "-f", TAG], check=False, capture_output=True)
    table = Table("where", "patches per second", "slowest of fastest round", title="a round of training")
    for where, rate in found["patches_per_second"].items():
        table.add_row(where, f"{rate:.2f}", f"{found['spread'][where]:.2f}x")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"inside at {found['ratio']:.3f} of outside (target {TARGET}); load {found['load']:.1f} on {found['processors']} processors"
    )
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
