"""What the egress guard costs beside one read of the same bytes, in one run as ratios; and its memory beside the model's size.

    python -m tests.bench.bench_guard [--megabytes 100 400] [--runs 5] [--folder DIR] [--output FILE]

For each size and rule set a process of its own makes the same release several times, in turn with reading the train's file and taking its
SHA-256, which is the least that anything does that takes a file and knows what it took. The guard reads two files (reply and inbound
weights), computes, hashes and writes a third and syncs it. Files lie in memory (/dev/shm) where there is room, so that no disk is
measured. Memory is the process's peak, its interpreter and libraries included.

Limits, exit status 1 beyond them: peak memory under twice the model; median time at most `MOST_READS` reads with SHA-256 without clipping,
`MOST_READS_CLIPPED` with it (one more pass over both files, to measure the norm). Why these: of what the guard does, reading two
files and hashing one takes 1.4 such reads, writing one half of one, arithmetic the rest, and a second processor does part of it.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.manifest import TrainKind
from policies.policy import TensorRules
from policies.wire.arrays import TensorShape, open_tensor, read_layout, released_dtype
from policies.wire.arrays_writing import ArraysWriter
from policies.wire.releases import ReleaseTensor, TensorRole
from station.egress.contract import ReleaseContract
from station.egress.training.updates import release_update

MOST_READS: Final = 3.5
MOST_READS_CLIPPED: Final = 5.0
MOST_MODELS: Final = 2.0
MEGABYTE: Final = 1_000_000
TENSORS: Final = 40
RULES: Final[dict[str, TensorRules]] = {
    "as they are": TensorRules(),
    "bfloat16": TensorRules(precision="bfloat16"),
    "clipped": TensorRules(clipping_norm=1.0),
    "clipped, bfloat16": TensorRules(clipping_norm=1.0, precision="bfloat16"),
}


def shapes(megabytes: int) -> list[TensorShape]:
    """A model of that size: half of it in one tensor, the rest in others."""
    elements = megabytes * MEGABYTE // 4
    rest = elements // 2 // (TENSORS - 1)
    sizes = [elements - rest * (TENSORS - 1), *[rest] * (TENSORS - 1)]
    return [TensorShape(f"layer{number:02d}.weight", "float32", (size,)) for number, size in enumerate(sizes)]


def write_model(path: Path, megabytes: int, seed: int, spread: float) -> None:
    """Write weights; the same seed and a larger spread are a step of training away."""
    start, step = np.random.default_rng(1), np.random.default_rng(seed)
    with ArraysWriter(path, shapes(megabytes)) as writer:
        for entry in writer.layout.entries:
            left = entry.tensor.elements
            while left:
                count = min(left, 1 << 20)
                items = start.standard_normal(count, np.float32) * np.float32(0.05)
                items += step.standard_normal(count, np.float32) * np.float32(spread)
                writer.write(entry.name, items)
                left -= count
        writer.close()


def contract(megabytes: int, rules: TensorRules) -> ReleaseContract:
    """What may leave: every tensor, under the rules."""
    tensors = tuple(
        ReleaseTensor(shape, TensorRole.PARAMETER, released_dtype(shape.dtype, rules.precision))
        for shape in shapes(megabytes)
    )
    return ReleaseContract(
        kind=TrainKind.TRAINING,
        problems=(),
        tensors=tensors,
        tensor_rules=rules,
        metrics=(),
        permitted_metrics=frozenset(),
        permitted_tables=frozenset(),
        maximum_bytes=1 << 40,
        minimum_patients=0,
        minimum_patients_per_metric=0,
        minimum_cell_count=0,
        rules_digest="sha256:" + "0" * 64,
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processors."""
    before, started = os.times(), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - started, os.times()
    return seconds, after.user + after.system - before.user - before.system


def read_and_hash(path: Path) -> None:
    """The peer: one read of the bytes, with SHA-256, in pieces of a megabyte."""
    digest, piece = hashlib.sha256(), bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])


def numpy_pass(path: Path) -> None:
    """The other peer: the smallest and the largest number of the file, mapped, without a look at its bytes as such."""
    for entry in read_layout(path).entries:
        items = open_tensor(path, entry)
        items.min()
        items.max()


def measure(folder: Path, megabytes: int, name: str, runs: int) -> dict[str, Any]:
    """Run in a process of its own: the guard and its peers in turn."""
    reply, inbound, out = (folder / file for file in (f"reply{megabytes}", f"inbound{megabytes}", "out"))
    agreed = contract(megabytes, RULES[name])

    def release() -> None:
        made = release_update(agreed, reply, inbound, out)
        if isinstance(made, tuple):
            raise SystemExit(f"nothing was released: {made}")

    found: dict[str, list[tuple[float, float]]] = {"guard": [], "read": []}
    for run in range(runs + 1):
        pair = {"guard": timed(release), "read": timed(lambda: read_and_hash(reply))}
        if run:  # the first warms up
            for key, value in pair.items():
                found[key].append(value)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    passes = [
        timed(lambda: numpy_pass(reply))[0] for _ in range(3)
    ]  # after the peak is taken: it maps the file
    guard, read = (statistics.median(item[0] for item in found[key]) for key in ("guard", "read"))
    return {
        "megabytes": megabytes,
        "rules": name,
        "guard_s": guard,
        "guard_cpu_s": statistics.median(item[1] for item in found["guard"]),
        "read_and_hash_s": read,
        "read_and_hash_cpu_s": statistics.median(item[1] for item in found["read"]),
        "numpy_pass_s": statistics.median(passes),
        "reads": statistics.median(g[0] / r[0] for g, r in zip(found["guard"], found["read"], strict=True)),
        "peak_bytes": peak,
        "models": peak / (megabytes * MEGABYTE),
    }


def within(result: dict[str, Any]) -> bool:
    """Whether a case keeps the limits."""
    most = MOST_READS_CLIPPED if result["rules"].startswith("clipped") else MOST_READS
    return bool(result["reads"] <= most and result["models"] < MOST_MODELS)


def place_with_room(needed: int) -> Path | None:
    """Memory as a file system, where it has room for the files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2 * needed else None


def run_all(folder: Path, sizes: list[int], runs: int) -> list[dict[str, Any]]:
    """Measure every case."""
    results = []
    for megabytes in sizes:
        write_model(folder / f"inbound{megabytes}", megabytes, 2, 0.0)
        write_model(folder / f"reply{megabytes}", megabytes, 2, 1e-3)
        for name in RULES:
            command = [
                sys.executable, "-m", "tests.bench.bench_guard", "--case", name, "--megabytes", str(megabytes),
                "--runs", str(runs), "--folder", str(folder),
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout))
        (folder / f"inbound{megabytes}").unlink()
        (folder / f"reply{megabytes}").unlink()
    return results


def show(results: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="The egress guard beside one read of the bytes with SHA-256")
    for heading in (
        "MB",
        "rules",
        "guard s",
        "its CPU s",
        "read s",
        "its CPU s",
        "numpy s",
        "reads",
        "peak MB",
        "of the model",
        "",
    ):
        table.add_column(heading, justify="left" if heading in {"rules", ""} else "right")
    for item in results:
        table.add_row(
            str(item["megabytes"]), item["rules"], f"{item['guard_s']:.3f}", f"{item['guard_cpu_s']:.3f}",
            f"{item['read_and_hash_s']:.3f}", f"{item['read_and_hash_cpu_s']:.3f}", f"{item['numpy_pass_s']:.3f}", f"{item['reads']:.2f}",
            f"{item['peak_bytes'] / MEGABYTE:.0f}", f"{item['models']:.2f}", "ok" if within(item) else "BEYOND",
        )  # fmt: skip
    Console(width=130).print(table)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the files lie")
    parser.add_argument("--output", type=Path, default=None, help="the results as JSON")
    parser.add_argument("--case", choices=sorted(RULES), default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case is not None:
        print(json.dumps(measure(asked.folder, asked.megabytes[0], asked.case, asked.runs)))
        return 0
    base = asked.folder or place_with_room(3 * max(asked.megabytes) * MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="pht-bench-guard-", dir=base) as folder:
        results = run_all(Path(folder), asked.megabytes, asked.runs)
    show(results)
    if asked.output is not None:
        asked.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(within(item) for item in results) else 1


if __name__ == "__main__":
    sys.exit(main())
