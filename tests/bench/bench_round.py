"""What a federated round costs besides the work: ours against stock Flower's deployment, in one run, as a ratio.

    python -m tests.bench.bench_round [--sizes 0.1,100] [--rounds 4] [--stations 3] [--output FILE]

Both sides: TLS, node authentication, the SuperLink's database on; trivial work (the weights come back as they went out);
train and evaluate in every round; the median of all rounds but the first. Stock Flower starts a process per message and
has no container; ours keeps a hardened container warm at each station and checks every number at the guard.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from policies.errors import PhtError
from tests.bench.round_ours import OurConsortium
from tests.bench.round_stock import stock_rounds
from tests.bench.scale_report import conditions
from tests.e2e.programs import ProgramError

TARGETS_S = {0.1: 0.5, 100.0: 2.0, 400.0: 6.0}
"""DESIGN section 9, for two stations."""


_FAULTS = (PhtError, ProgramError, RuntimeError, OSError, httpx.HTTPError, subprocess.SubprocessError)
"""What a side may fail with at one size; the others are still measured."""


@dataclass
class Bench:
    """What is measured, and what has been found of it."""

    console: Console
    scratch: Path
    stations: int
    rounds: int
    begun: float = field(default_factory=time.monotonic)
    ours_s: dict[float, float] = field(default_factory=dict)
    stock_s: dict[float, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """One line, with the time since the start."""
        since = round(time.monotonic() - self.begun, 1)
        self.console.print(f"\\[{int(since // 60):2d}:{since % 60:04.1f}] {text}")

    def seconds(self, what: str, size_mb: float, measure: Callable[[], Sequence[float]]) -> float | None:
        """The median of the rounds of one side; None where it failed, which is said and kept."""
        self.say(f"{what}, {self.stations} stations, {size_mb:g} MB, {self.rounds} rounds ...")
        try:
            found = statistics.median(measure())
        except _FAULTS as error:
            self.failed.append(f"{what}, {size_mb:g} MB: {type(error).__name__}: {error}")
            self.say(f"  failed: {self.failed[-1]}")
            return None
        self.say(f"  {found:.2f} s a round")
        return found


def measure(bench: Bench, sizes_mb: Sequence[float]) -> None:
    """Both sides at each size."""
    _measure_ours(bench, sizes_mb)
    for size_mb in sizes_mb:
        folder = bench.scratch / f"stock-{size_mb:g}"
        folder.mkdir()
        run = partial(stock_rounds, folder, int(size_mb * 1e6), bench.rounds, bench.stations)
        stock_s = bench.seconds("stock Flower", size_mb, run)
        if stock_s is not None:
            bench.stock_s[size_mb] = stock_s
        shutil.rmtree(folder, ignore_errors=True)
        if size_mb in bench.ours_s and size_mb in bench.stock_s:
            bench.say(f"  ratio {bench.stock_s[size_mb] / bench.ours_s[size_mb]:.2f}")


def _measure_ours(bench: Bench, sizes_mb: Sequence[float]) -> None:
    ours = OurConsortium(bench.scratch, bench.stations)
    with ours.stopping:
        bench.say(
            "setting up a consortium of our programs: board, orchestrator, hospitals, an approved train ..."
        )
        ours.found()
        for size_mb in sizes_mb:
            own_s = bench.seconds("ours", size_mb, partial(ours.rounds, int(size_mb * 1e6), bench.rounds))
            if own_s is not None:
                bench.ours_s[size_mb] = own_s


def fitting(sizes_mb: Sequence[float], stations: int, folder: Path, console: Console) -> list[float]:
    """Those of the sizes that the disk has room for; the others are said with what they need."""
    fit: list[float] = []
    for size_mb in sizes_mb:
        # At each station the weights, its update and what it sends of it; at the orchestrator an update of each, and six models.
        needed_mb = size_mb * (6 * stations + 6) + 4000
        free_mb = shutil.disk_usage(folder).free / 1e6
        if needed_mb > free_mb:
            console.print(
                f"left out: {size_mb:g} MB needs {needed_mb / 1e3:.1f} GB of disk, {free_mb / 1e3:.1f} are free"
            )
        else:
            fit.append(size_mb)
    return fit


def rows_of(bench: Bench) -> list[dict[str, float]]:
    """What was found at each size that both sides got through."""
    return [
        {
            "size_mb": size_mb,
            "stations": bench.stations,
            "ours_s": round(own_s, 3),
            "stock_s": round(bench.stock_s[size_mb], 3),
            "ratio": round(bench.stock_s[size_mb] / own_s, 2),
        }
        for size_mb, own_s in bench.ours_s.items()
        if size_mb in bench.stock_s
    ]


def main() -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="0.1,100", help="weights in MB, with commas")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--stations", type=int, default=3, help="3 is the fewest that may train without noise"
    )
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args()
    # Told to end, it ends what it started and prints what it has.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, width=120)
    console.print(conditions())
    scratch = Path(tempfile.mkdtemp(prefix="pht-bench-"))
    # Each station's services run under users of their own and have to get at their folder.
    scratch.chmod(0o755)
    bench = Bench(console, scratch, choices.stations, choices.rounds)
    sizes = fitting([float(size) for size in choices.sizes.split(",")], choices.stations, scratch, console)
    try:
        measure(bench, sizes)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        show(bench)
        if choices.output is not None:
            choices.output.write_text(json.dumps(rows_of(bench), indent=1) + "\n")
    return 1 if bench.failed else 0


def show(bench: Bench) -> None:
    """What was found until now."""
    table = Table(title=f"seconds per round, {bench.stations} stations, trivial work", title_justify="left")
    for column in ("weights", "ours", "stock Flower", "ratio", "target (2 stations)"):
        table.add_column(column, justify="right")
    for size_mb in dict.fromkeys((*bench.ours_s, *bench.stock_s)):
        own_s, stock_s, target = bench.ours_s.get(size_mb), bench.stock_s.get(size_mb), TARGETS_S.get(size_mb)
        table.add_row(
            f"{size_mb:g} MB",
            "" if own_s is None else f"{own_s:.2f} s",
            "" if stock_s is None else f"{stock_s:.2f} s",
            "" if own_s is None or stock_s is None else f"{stock_s / own_s:.1f}x",
            f"{target:g} s" if target else "",
        )
    bench.console.print(table)
    for each in bench.failed:
        bench.console.print(f"failed: {each}")
    bench.console.print(conditions())


if __name__ == "__main__":
    raise SystemExit(main())
