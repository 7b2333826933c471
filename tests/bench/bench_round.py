"""What a federated round costs besides the work: ours against stock Flower's deployment, in one run, as a ratio.

    python -m tests.bench.bench_round [--sizes 0.1,100] [--rounds 4] [--stations 3] [--output FILE]

Both sides: TLS, node authentication, the SuperLink's database on; trivial work (the weights come back as they went out);
train and evaluate in every round; the median of all rounds but the first. Stock Flower starts a process per message and
has no container; ours keeps a hardened container warm at each station and checks every number at the guard.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.round_ours import OurConsortium
from tests.bench.round_stock import stock_rounds

TARGETS_S = {0.1: 0.5, 100.0: 2.0, 400.0: 6.0}
"""DESIGN section 9, for two stations."""


def measure(
    sizes_mb: Sequence[float], rounds: int, stations: int, console: Console
) -> list[dict[str, float]]:
    """Both sides at each size."""
    scratch = Path(tempfile.mkdtemp(prefix="pht-bench-"))
    # Each station's services run under users of their own and have to get at their folder.
    scratch.chmod(0o755)
    found: list[dict[str, float]] = []
    try:
        ours = OurConsortium(scratch, stations)
        with ours.stopping:
            console.print("setting up a consortium of our programs ...")
            ours.found()
            mine = {size: ours.rounds(int(size * 1e6), rounds) for size in sizes_mb}
        for size in sizes_mb:
            console.print(f"stock Flower, {size:g} MB ...")
            folder = scratch / f"stock-{size:g}"
            folder.mkdir()
            theirs = stock_rounds(folder, int(size * 1e6), rounds, stations)
            own_s, stock_s = statistics.median(mine[size]), statistics.median(theirs)
            found.append(
                {
                    "size_mb": size,
                    "stations": stations,
                    "ours_s": round(own_s, 3),
                    "stock_s": round(stock_s, 3),
                    "ratio": round(stock_s / own_s, 2),
                }
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


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
    console = Console(highlight=False)
    sizes = [float(size) for size in choices.sizes.split(",")]
    found = measure(sizes, choices.rounds, choices.stations, console)
    table = Table(title=f"seconds per round, {choices.stations} stations, trivial work")
    for column in ("weights", "ours", "stock Flower", "ratio", "target (2 stations)"):
        table.add_column(column, justify="right")
    for row in found:
        target = TARGETS_S.get(row["size_mb"])
        table.add_row(
            f"{row['size_mb']:g} MB",
            f"{row['ours_s']:.2f} s",
            f"{row['stock_s']:.2f} s",
            f"{row['ratio']:.1f}x",
            f"{target:g} s" if target else "",
        )
    console.print(table)
    if choices.output is not None:
        choices.output.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
