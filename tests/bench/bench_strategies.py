"""What each aggregation strategy costs beside one read of the model's bytes, in one run as ratios; and its memory beside the model's size.

    python -m tests.bench.bench_strategies [--megabytes 100] [--stations 3] [--runs 3] [--folder DIR] [--output FILE]

For each strategy a process of its own combines the same updates several times, in turn with reading the inbound weights and taking their
SHA-256, which is the least that anything does that takes a file and knows what it took. Stateful strategies start from the moments
of an earlier round, so that they read and write all of them. Files lie in memory (/dev/shm) where there is room, so that no disk is
measured. Memory is what the process holds at its peak above what it held before (mapped files lie in the page cache).

Limit, exit status 1 beyond it: `MOST_BYTES`, whatever the model's size and the number of stations; so much is a few pieces of each
station and Flower's records of them. Times are told and not judged: they are Flower's arithmetic, and its records.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, Self

from flwr.supercore.task_identity import TaskIdentity
from rich.console import Console
from rich.table import Table

from orchestrator.federation.aggregation import Inbound, Update, aggregate, make_strategy
from orchestrator.federation.strategies import StateFiles
from policies.order import StrategyChoice
from policies.strategies import StrategyName
from tests.bench.bench_guard import MEGABYTE, place_with_room, read_and_hash, write_model

MOST_BYTES: Final = 200_000_000
CASES: Final[dict[StrategyName, dict[str, float]]] = {
    "FedAvg": {},
    "FedAvgM": {"server_momentum": 0.9},
    "FedAdam": {},
    "FedYogi": {},
    "FedAdagrad": {},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.34},
    "Krum": {},
}


def held_bytes() -> int:
    """What this process holds by itself: files that it maps are not counted, which are the page cache's to drop."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the kernel does not tell what a process holds")


class Watch:
    """Looks at what the process holds every few milliseconds."""

    def __init__(self) -> None:
        self.most = held_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.003):
            self.most = max(self.most, held_bytes())


def measure(folder: Path, name: StrategyName, stations: int, runs: int) -> dict[str, Any]:
    """Run in a process of its own: the strategy and its peer in turn."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    strategy = make_strategy(StrategyChoice.model_validate({"name": name, "parameters": CASES[name]}))
    updates = [Update(f"s{number:03d}", folder / f"delta{number}", 10 + number) for number in range(stations)]
    files = StateFiles(folder / f"strategy-{name}")
    inbound = folder / "inbound"
    state = aggregate(strategy, 1, Inbound(inbound), updates, files).state
    before = held_bytes()
    peak = before

    def combine() -> None:
        nonlocal peak
        found = aggregate(strategy, 2, Inbound(inbound, state=state), updates, files)
        (folder / found.weights.digest[7:]).unlink(missing_ok=True)
        files.keep_only(state)

    times: list[tuple[float, float]] = []
    for _ in range(runs):
        with Watch() as watch:
            begun = time.perf_counter()
            combine()
            combined = time.perf_counter() - begun
        peak = max(peak, watch.most)
        begun = time.perf_counter()
        read_and_hash(inbound)
        times.append((combined, time.perf_counter() - begun))
    files.keep_only({})
    megabytes = inbound.stat().st_size / MEGABYTE
    return {
        "strategy": name,
        "seconds": statistics.median(each[0] for each in times),
        "read_s": statistics.median(each[1] for each in times),
        "reads": statistics.median(each[0] / each[1] for each in times),
        "peak_bytes": peak - before,
        "process_bytes": peak,
        "models": (peak - before) / MEGABYTE / megabytes,
    }


def run_all(folder: Path, megabytes: int, stations: int, runs: int) -> list[dict[str, Any]]:
    """Measure every strategy."""
    write_model(folder / "inbound", megabytes, 2, 0.0)
    for number in range(stations):
        write_model(folder / f"delta{number}", megabytes, 3 + number, 1e-3)
    results = []
    for name in CASES:
        command = [
            sys.executable, "-m", "tests.bench.bench_strategies", "--case", name, "--stations", str(stations),
            "--runs", str(runs), "--folder", str(folder),
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout))
    return results


def show(results: list[dict[str, Any]], megabytes: int, stations: int) -> None:
    """Print the table."""
    table = Table(
        title=f"{stations} updates of {megabytes} MB combined, beside one read of {megabytes} MB with SHA-256"
    )
    for heading in ("strategy", "seconds", "read s", "reads", "peak MB", "of the model", ""):
        table.add_column(heading, justify="left" if heading in {"strategy", ""} else "right")
    for item in results:
        table.add_row(
            item["strategy"], f"{item['seconds']:.2f}", f"{item['read_s']:.3f}", f"{item['reads']:.1f}",
            f"{item['peak_bytes'] / MEGABYTE:.0f}", f"{item['models']:.2f}", "ok" if within(item) else "BEYOND",
        )  # fmt: skip
    Console(width=110).print(table)


def within(result: dict[str, Any]) -> bool:
    """Whether a case keeps the limit."""
    return bool(result["peak_bytes"] <= MOST_BYTES)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--stations", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the files lie")
    parser.add_argument("--output", type=Path, default=None, help="the results as JSON")
    parser.add_argument("--case", choices=sorted(CASES), default=None, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case is not None:
        print(json.dumps(measure(asked.folder, asked.case, asked.stations, asked.runs)))
        return 0
    # The updates, the weights before and after, and two sets of moments, old and new.
    base = asked.folder or place_with_room((asked.stations + 6) * asked.megabytes * MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="pht-bench-strategies-", dir=base) as folder:
        results = run_all(Path(folder), asked.megabytes, asked.stations, asked.runs)
    show(results, asked.megabytes, asked.stations)
    if asked.output is not None:
        asked.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(within(item) for item in results) else 1


if __name__ == "__main__":
    sys.exit(main())
