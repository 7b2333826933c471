"""What 100 stations cost one orchestrator: seconds, bytes and memory per round, over models and links, as ratios.

    python -m tests.bench.bench_scale [--only rounds,long,idle,links,large,stock] [--stations 10,30,100] [--output FILE]

A real orchestrator (`pht-orchestrator serve`: TLS, SuperLink with its database and node authentication, run worker), a board
with real keys, signed orders under a policy; the stations' agents and blob clients are real as well, the trains are not: their
weights come back as they went out. All on one machine: seconds are those of the machine, ratios and bytes are not.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.federation.superlink import free_port
from tests.bench.round_stock import stock_rounds
from tests.bench.scale_consortium import ScaleConsortium
from tests.bench.scale_links import Link, Quality
from tests.bench.scale_processes import PARTS, parts_of, read_process
from tests.bench.scale_stations import Stations, total

IDLE_S = 30.0
TWO_MBIT = 2e6 / 8
TIMING = {"prepare_s": 300.0, "prepare_grace_s": 60.0, "answer_s": 600.0, "straggler_s": 300.0}


@dataclass
class Bench:
    """What has been found, and where to look for more."""

    consortium: ScaleConsortium
    scratch: Path
    stations_folder: Path
    console: Console
    counts: Sequence[int]
    sizes: Sequence[float]
    rounds: int
    found: dict[str, Any] = field(default_factory=dict)

    def stations(self, count: int, urls: dict[int, str] | None = None) -> Stations:
        """So many simulated stations, a context."""
        members = self.consortium.members(count, urls)
        return Stations(members, self.consortium.home.ca_certificate, self.stations_folder)


def rounds(bench: Bench) -> None:
    """Seconds, bytes, memory and processor time per round, over stations and models."""
    rows: list[dict[str, Any]] = []
    for count in bench.counts:
        with bench.stations(count) as stations:
            for size_mb in bench.sizes:
                bench.console.print(f"{count} stations, {size_mb:g} MB ...")
                rows.append(_measured(bench, stations, count, size_mb, bench.rounds))
    _show_rounds(bench.console, rows)
    few, many = min(bench.counts), max(bench.counts)
    small, big = min(bench.sizes), max(bench.sizes)
    at = {(row["stations"], row["size_mb"]): row for row in rows}
    ratios = {
        f"time({many})/time({few}) at {size:g} MB (linear: {many / few:g})": at[many, size]["wall_s"]
        / at[few, size]["wall_s"]
        for size in bench.sizes
    }
    for part in PARTS:
        ratios[f"memory({many})/memory({few}) of {part} at {big:g} MB"] = (
            at[many, big]["peak_mb"][part] / at[few, big]["peak_mb"][part]
        )
    for count in bench.counts:
        cpu = at[count, small]["cpu_s"]
        ratios[f"SuperLink's processor seconds per station and round, {count} stations"] = (
            cpu["superlink"] / count
        )
        ratios[f"SuperLink's share of the orchestrator's processor time, {count} stations"] = cpu[
            "superlink"
        ] / sum(cpu.values())
        if big > small:
            # Beyond what a round costs in any case.
            rise_s = at[count, big]["wall_s"] - at[count, small]["wall_s"]
            moved_mb = count * (big - small) * 2
            ratios[f"s per 100 MB moved, {count} stations"] = 100 * rise_s / moved_mb
    _show_ratios(bench.console, ratios)
    bench.found["rounds"], bench.found["ratios"] = rows, ratios


def long(bench: Bench) -> None:
    """Whether anything grows with the rounds."""
    count, number = 10, 52
    bench.console.print(f"{count} stations, 0.1 MB, {number} rounds ...")
    with bench.stations(count) as stations:
        cost = bench.consortium.run(count, 100_000, number)
        del stations
    early, late = cost.rounds[3:13], cost.rounds[-10:]
    ratios = {
        f"memory(round 50)/memory(round 5) of {part}": cost.peak_mb(part, 50) / cost.peak_mb(part, 5)
        for part in PARTS
    }
    ratios["time of rounds 43-52 / time of rounds 4-13"] = statistics.median(
        each.wall_s for each in late
    ) / statistics.median(each.wall_s for each in early)
    _show_ratios(bench.console, ratios)
    bench.found["long"] = ratios


def idle(bench: Bench) -> None:
    """What stations cost that wait for work."""
    count = max(bench.counts)
    bench.console.print(f"{count} stations without work, {IDLE_S:g} s ...")
    with bench.stations(count) as stations:
        # All are connected once an order of one round is over; some time after it they are at rest.
        bench.consortium.run(count, 1000, 1)
        time.sleep(IDLE_S)
        pids = parts_of(bench.consortium.supervisor)
        pids = {name: pid for name, pid in pids.items() if name != "serverapp"}
        before = {name: read_process(pid) for name, pid in pids.items()}
        asked = _requests(stations)
        time.sleep(IDLE_S)
        after = {name: read_process(pid) for name, pid in pids.items()}
        asked = {name: value - asked.get(name, 0) for name, value in _requests(stations).items()}
    ratios = {"requests/s of all stations": sum(asked.values()) / IDLE_S}
    for name in pids:
        ratios[f"share of a core: {name}"] = (after[name].cpu_s - before[name].cpu_s) / (
            after[name].at - before[name].at
        )
    _show_ratios(bench.console, ratios)
    bench.found["idle"] = ratios


def links(bench: Bench) -> None:
    """One station on a slow line, one on a lossy one, among others on good ones."""
    count, size_mb, number = 10, 4.0, bench.rounds
    port = int(bench.consortium.url.rpartition(":")[2])
    lossy = Quality(breaks_every=1.5e6, stall_s=1.0)
    kinds = {"all good": None, "one at 2 Mbit/s": Quality(TWO_MBIT), "one that breaks": lossy}
    ratios: dict[str, float] = {}
    for name, quality in kinds.items():
        bench.console.print(f"{count} stations, {size_mb:g} MB, {name} ...")
        with (
            Link(port, quality or Quality(), seed=7) as link,
            bench.stations(count, {0: f"https://localhost:{link.port}"} if quality else {}) as stations,
        ):
            cost = bench.consortium.run(count, int(size_mb * 1e6), number)
            counted = stations.counted()
        others = bench.consortium.names[1:count]
        ratios[f"seconds per round, {name}"] = cost.wall_s()
        ratios[f"the others' median transfer, s, {name}"] = statistics.median(
            seconds for each in others for key in ("fetch_s", "push_s") for seconds in counted[each][key]
        )
        ratios[f"rounds with all {count}, {name}"] = sum(each.took_part == count for each in cost.rounds)
        if quality is not None:
            needed = size_mb * 1e6 * (2 * number + 1)
            ratios[f"bytes over the line / bytes of models, {name}"] = (
                link.carried.up + link.carried.down
            ) / needed
            ratios[f"connections broken, {name}"] = link.carried.breaks
    _show_ratios(bench.console, ratios)
    bench.found["links"] = ratios


def large(bench: Bench) -> None:
    """Models of 100 and 400 MB."""
    rows = []
    for count, size_mb, number in ((3, 10.0, 4), (10, 100.0, 3), (3, 100.0, 3), (3, 400.0, 3)):
        bench.console.print(f"{count} stations, {size_mb:g} MB ...")
        with bench.stations(count) as stations:
            rows.append(_measured(bench, stations, count, size_mb, number))
    _show_rounds(bench.console, rows)
    at = {(row["stations"], row["size_mb"]): row["wall_s"] for row in rows}
    ratios = {
        "time(400 MB)/time(100 MB), 3 stations (linear: 4)": at[3, 400.0] / at[3, 100.0],
        "time(10)/time(3) stations at 100 MB (linear: 3.3)": at[10, 100.0] / at[3, 100.0],
    }
    _show_ratios(bench.console, ratios)
    bench.found["large"] = {"rows": rows, "ratios": ratios}


def stock(bench: Bench) -> None:
    """The same number of stock SuperNodes, in the same run, as a ratio."""
    count, size = 10, 100_000
    with bench.stations(count) as stations:
        own_s = bench.consortium.run(count, size, 4).wall_s()
        del stations
    bench.console.print(f"stock Flower, {count} SuperNodes ...")
    folder = bench.scratch / "stock"
    folder.mkdir()
    stock_s = statistics.median(stock_rounds(folder, size, 3, count))
    ratios = {"ours, s": own_s, "stock Flower, s": stock_s, "stock/ours": stock_s / own_s}
    _show_ratios(bench.console, ratios)
    bench.found["stock"] = ratios


SCENES: dict[str, Callable[[Bench], None]] = {
    "rounds": rounds,
    "long": long,
    "idle": idle,
    "links": links,
    "large": large,
    "stock": stock,
}


def _measured(bench: Bench, stations: Stations, count: int, size_mb: float, number: int) -> dict[str, Any]:
    before = stations.counted()
    cost = bench.consortium.run(count, int(size_mb * 1e6), number)
    after = stations.counted()
    if any(each.took_part != count for each in cost.rounds):
        raise RuntimeError(f"a station did not take part: {[dict(each.missing) for each in cost.rounds]}")
    moved = {
        key: (total(after, key) - total(before, key)) / count / number / 1e6 for key in ("received", "sent")
    }
    asked = sum(_sum_requests(after).values()) - sum(_sum_requests(before).values())
    return {
        "stations": count,
        "size_mb": size_mb,
        "wall_s": cost.wall_s(),
        "aggregate_s": statistics.median(each.aggregate_s for each in cost.rounds),
        "requests": asked / count / number,
        **moved,
        "peak_mb": {part: cost.peak_mb(part) for part in PARTS},
        "cpu_s": {part: cost.cpu_s(part) for part in PARTS},
    }


def _requests(stations: Stations) -> dict[str, int]:
    return _sum_requests(stations.counted())


def _sum_requests(counted: dict[str, dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in counted.values():
        for name, value in each["requests"].items():
            found[name] = found.get(name, 0) + value
    return found


def _show_rounds(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(
        title="a round (train and evaluate): wall seconds; per station: requests and MB; of each process: CPU s, peak MB"
    )
    for column in ("stations", "model", "s", "averaging s", "requests", "in", "out", *PARTS):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["stations"]),
            f"{row['size_mb']:g} MB",
            f"{row['wall_s']:.2f}",
            f"{row['aggregate_s']:.2f}",
            f"{row['requests']:.0f}",
            f"{row['received']:.2f}",
            f"{row['sent']:.2f}",
            *(f"{row['cpu_s'][part]:.2f} s {row['peak_mb'][part]:.0f} MB" for part in PARTS),
        )
    console.print(table)


def _show_ratios(console: Console, ratios: dict[str, float]) -> None:
    table = Table(show_header=False)
    for name, value in ratios.items():
        table.add_row(name, f"{value:.3g}")
    console.print(table)


def _conditions() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {"commit": commit, "cores": os.cpu_count(), "load": [round(each, 1) for each in os.getloadavg()]}


def main() -> int:
    """Measure, show, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SCENES), help=f"of: {', '.join(SCENES)}")
    parser.add_argument("--stations", default="10,30,100", help="with commas")
    parser.add_argument("--sizes", default="0.1,1,10", help="weights in MB, with commas")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--output", type=Path, help="a JSON file")
    choices = parser.parse_args()
    console = Console(highlight=False, width=150)
    counts = [int(each) for each in choices.stations.split(",")]
    sizes = [float(each) for each in choices.sizes.split(",")]
    console.print(_conditions())
    # The stations' own disks are other machines': their models lie in memory where there is room.
    shared = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="pht-scale-"))
    elsewhere = Path(tempfile.mkdtemp(prefix="pht-scale-", dir=shared if shared.is_dir() else None))
    try:
        with ScaleConsortium(scratch / "consortium", max(*counts, 30), free_port(), TIMING) as consortium:
            bench = Bench(consortium, scratch, elsewhere, console, counts, sizes, choices.rounds)
            for name in choices.only.split(","):
                SCENES[name](bench)
                if choices.output is not None:
                    choices.output.write_text(json.dumps(bench.found, indent=1) + "\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(elsewhere, ignore_errors=True)
    bench.found["conditions"] = _conditions()
    console.print(bench.found["conditions"])
    if choices.output is not None:
        choices.output.write_text(json.dumps(bench.found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
