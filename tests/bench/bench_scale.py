"""What 100 stations cost one orchestrator: seconds, bytes and memory per round, over models and links, as ratios.

    python -m tests.bench.bench_scale [--scenes rounds,long,idle,links,large,stock] [--stations 10,30,100] [--minutes 25]

A real orchestrator (`pht-orchestrator serve`: TLS, SuperLink with its database and node authentication, run worker), a board
with real keys, signed orders under a policy; the stations' agents and blob clients are real as well, the trains are not: their
weights come back as they went out. All on one machine: seconds are those of the machine, ratios and bytes are not.

What there is no disk, memory or time for is left out, and said with what it needs, before it begins. A scene that fails says so,
the others go on with another orchestrator, and what was found is printed whatever happens; then the exit code is 1.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console

from policies.errors import PhtError
from tests.bench.scale_link_scene import links
from tests.bench.scale_report import Report, conditions
from tests.bench.scale_room import Room
from tests.bench.scale_scenes import Bench, idle, large, long, rounds, stock
from tests.e2e.programs import ProgramError

SHARES = {"rounds": 0.55, "large": 0.3, "links": 0.3}
"""How much of the time a scene may take at most: on a busy machine the others are to have some, too."""

ANEW = frozenset({"large", "long"})
"""Scenes that look at memory: an orchestrator that served a hundred stations keeps some of what they took."""

SCENES: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "rounds": ("a round, over stations and models", rounds),
    "large": ("models of 100 and 400 MB", large),
    "links": ("one bad line among ten", links),
    "idle": ("stations that wait for work", idle),
    "long": ("fifty rounds: does anything grow", long),
    "stock": ("stock Flower beside ours", stock),
}

_FAULTS = (
    PhtError,
    ProgramError,
    RuntimeError,
    OSError,
    httpx.HTTPError,
    subprocess.SubprocessError,
    ValueError,
)
"""What a scene may fail with: the others are still measured. Anything else is a mistake in the bench, and ends it."""


def main() -> int:
    """Measure, show, write."""
    choices = _choices()
    # Told to end, it ends what it started and prints what it has.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(Console(highlight=False, width=165), choices.output)
    report.conditions = conditions()
    report.console.print(report.conditions)
    # The stations' own disks are other machines': their models lie in memory where there is room.
    shared = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="pht-scale-"))
    elsewhere = Path(tempfile.mkdtemp(prefix="pht-scale-", dir=shared if shared.is_dir() else None))
    room = Room(scratch, elsewhere, choices.minutes * 60)
    bench = Bench(report, room, scratch, elsewhere, choices.stations, choices.sizes, choices.rounds)
    try:
        for name in choices.scenes:
            _scene(bench, name, several=len(choices.scenes) > 1)
    finally:
        bench.drop()
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(elsewhere, ignore_errors=True)
        report.conditions["load_at_the_end"] = conditions()["load"]
        report.conditions["minutes"] = round((time.monotonic() - report.begun) / 60, 1)
        report.keep()
        report.console.print(report.conditions)
    failed = [name for name, found in report.scenes.items() if found.failed]
    if failed:
        report.console.print(f"[bold]failed:[/] {', '.join(failed)}")
    return 1 if failed else 0


def _scene(bench: Bench, name: str, *, several: bool = True) -> None:
    title, measure = SCENES[name]
    bench.report.begin(name, title)
    begun = time.monotonic()
    # A scene that is asked for alone has all of it.
    bench.room.share(SHARES.get(name, 1.0) if several else 1.0)
    try:
        if name in ANEW:
            bench.drop()
        measure(bench)
    except _FAULTS as error:
        bench.report.found.failed = f"{type(error).__name__}: {error}"
        # Whatever is left of its orders is nothing that the next scene's figures should hold.
        bench.drop()
    finally:
        bench.report.found.seconds = round(time.monotonic() - begun, 1)
        bench.report.end()


def _choices() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", default=",".join(SCENES), help=f"of: {', '.join(SCENES)}")
    parser.add_argument("--stations", default="10,30,100", help="with commas")
    parser.add_argument("--sizes", default="0.1,10", help="weights in MB, with commas")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of each order of the scene of rounds; two at least"
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="what does not fit in is left out")
    parser.add_argument("--output", type=Path, help="a JSON file, written after each step")
    choices = parser.parse_args()
    choices.scenes = choices.scenes.split(",")
    unknown = [name for name in choices.scenes if name not in SCENES]
    if unknown:
        parser.error(f"no such scene: {', '.join(unknown)}")
    choices.stations = [int(each) for each in choices.stations.split(",")]
    choices.sizes = [float(each) for each in choices.sizes.split(",")]
    if choices.rounds < 2 or min(choices.stations) < 3:
        parser.error("two rounds and three stations are the fewest")
    return choices


if __name__ == "__main__":
    raise SystemExit(main())
