"""The scenes of the bench of scale: rounds, many of them, stations at rest, models of hundreds of MB, stock Flower beside ours.

Each says its size, and its figures as ratios: to fewer stations or smaller models of the same run, to bare TLS, to stock Flower.
The links are in `scale_link_scene`.
"""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.federation.ports import free_port
from orchestrator.federation.superlink import SuperLinkFiles
from tests.bench.round_stock import stock_ends
from tests.bench.scale_consortium import RunCost, ScaleConsortium
from tests.bench.scale_floor import Bare, bare_tls_s
from tests.bench.scale_network import HERE
from tests.bench.scale_processes import PARTS, Reading, Watch, parts_of, read_process
from tests.bench.scale_report import Report
from tests.bench.scale_room import SUPERNODE_MB, Need, Room, need_of
from tests.bench.scale_stations import Stations, total

IDLE_S = 30.0
TIMING = {"prepare_s": 300.0, "prepare_grace_s": 60.0, "answer_s": 900.0, "straggler_s": 600.0}


@dataclass
class Bench:
    """What the scenes share. The orchestrator is founded when one is needed, and another one after a scene that failed."""

    report: Report
    room: Room
    scratch: Path
    elsewhere: Path
    counts: Sequence[int]
    sizes: Sequence[float]
    rounds: int
    _stack: ExitStack = field(default_factory=ExitStack)
    _consortium: ScaleConsortium | None = None
    _founded: int = 0

    @property
    def consortium(self) -> ScaleConsortium:
        """An orchestrator that serves, with all stations in its register."""
        if self._consortium is None:
            number = max(*self.counts, 10)
            self.report.say(f"founding an orchestrator with {number} stations in its register ...")
            self._founded += 1
            folder = self.scratch / f"consortium-{self._founded}"
            made = ScaleConsortium(folder, number, free_port(), TIMING, ["localhost", HERE])
            self._consortium = self._stack.enter_context(made)
        return self._consortium

    def drop(self) -> None:
        """End the orchestrator; who asks for one founds another."""
        self._consortium = None
        self._stack.close()

    def stations(
        self,
        count: int,
        urls: Mapping[int, str] | None = None,
        entering: Mapping[int, Sequence[str]] | None = None,
    ) -> Stations:
        """So many simulated stations, a context."""
        members = self.consortium.members(count, urls, entering)
        folder = self.elsewhere / f"consortium-{self._founded}"
        return Stations(members, self.consortium.home.ca_certificate, folder)

    def run(self, count: int, size_mb: float, number: int) -> RunCost:
        """One order, told as it goes on.

        Raises:
            RuntimeError: it failed, or a station did not take part.
            TimeoutError: it was not over in the time that is left.
        """
        cost = self.consortium.run(
            count,
            int(size_mb * 1e6),
            number,
            timeout_s=max(60.0, self.room.left_s),
            on_round=self.report.on_round,
        )
        if len(cost.rounds) < number:
            self.report.left_out(f"rounds {len(cost.rounds) + 1} to {number}: time was over")
        return cost

    def fits(self, what: str, need: Need) -> bool:
        """Whether there is room; said where there is not."""
        lacking = self.room.lacking(need)
        if lacking is not None:
            self.report.left_out(f"{what}: needs {lacking}")
        return lacking is None


def rounds(bench: Bench) -> None:
    """Seconds, bytes, memory and processor time per round, over stations and models."""
    for count in sorted(bench.counts):
        with ExitStack() as stack:
            stations: Stations | None = None
            for size_mb in sorted(bench.sizes):
                need = need_of(count, size_mb, bench.rounds)
                if not bench.fits(f"{count} stations, {size_mb:g} MB", need):
                    continue
                if stations is None:
                    stations = stack.enter_context(bench.stations(count))
                bench.report.row(_measured(bench, stations, count, size_mb, bench.rounds))
    _ratios_of_rounds(bench.report)


def _ratios_of_rounds(report: Report) -> None:
    at = {(row["stations"], row["size_mb"]): row for row in report.found.rows}
    for size_mb in sorted({size for _, size in at}):
        counts = sorted(count for count, size in at if size == size_mb)
        few, many = at[counts[0], size_mb], at[counts[-1], size_mb]
        if few is many:
            continue
        stations = f"{counts[-1]} stations / {counts[0]}, {size_mb:g} MB"
        report.ratio(
            f"time of a round, {stations} (linear: {counts[-1] / counts[0]:.3g})",
            many["wall_s"] / few["wall_s"],
        )
        for part in PARTS:
            report.ratio(f"memory of {part}, {stations}", many["peak_mb"][part] / few["peak_mb"][part])
        between = counts[-1] - counts[0]
        for part in ("superlink", "front", "serverapp"):
            slope = (many["cpu_s"][part] - few["cpu_s"][part]) / between
            report.ratio(f"CPU s per further station and round, {part}, {size_mb:g} MB", slope)
        report.ratio(
            f"s per further station and round, {size_mb:g} MB", (many["wall_s"] - few["wall_s"]) / between
        )
    for (count, size_mb), row in sorted(at.items()):
        cpu = row["cpu_s"]
        name = f"{count} stations, {size_mb:g} MB"
        report.ratio(
            f"SuperLink's share of the orchestrator's CPU, {name}", cpu["superlink"] / sum(cpu.values())
        )
        report.ratio(
            f"SuperLink's CPU s / round's s (1 is all that one process can), {name}",
            cpu["superlink"] / row["wall_s"],
        )
        if size_mb >= 1:
            # The initial weights, and each round's weights and update.
            models_mb = size_mb * (2 + 1 / row["rounds"])
            moved_mb = row["received"] + row["sent"]
            report.ratio(f"bytes moved / bytes of models, {name}", moved_mb / models_mb)


def long(bench: Bench) -> None:
    """Whether anything grows with the rounds."""
    count, number = 5, 52
    if not bench.fits(f"{number} rounds", need_of(count, 0.1, number)):
        return
    bench.report.say(f"{count} stations, 0.1 MB, {number} rounds ...")
    database = SuperLinkFiles(bench.consortium.home.superlink).database
    with bench.stations(count):
        before_mb = _database_mb(database)
        cost = bench.run(count, 0.1, number)
        after_mb = _database_mb(database)
    done = len(cost.rounds)
    if done < 20:
        bench.report.left_out("a slope over fewer than 20 rounds says nothing")
        return
    last = min(50, done)
    for part in PARTS:
        report_name = f"memory of {part}"
        peaks = [cost.peak_mb(part, number) for number in range(5, last + 1)]
        bench.report.ratio(f"{report_name}, round {last} / round 5", peaks[-1] / peaks[0])
        slope = statistics.linear_regression(range(len(peaks)), peaks).slope
        bench.report.ratio(f"{report_name}, slope in MB per 100 rounds", 100 * slope)
    early, late = cost.rounds[3:13], cost.rounds[-10:]
    bench.report.ratio(
        "time of the last ten rounds / of rounds 4 to 13",
        statistics.median(each.wall_s for each in late) / statistics.median(each.wall_s for each in early),
    )
    grown_kb = 1000 * (after_mb - before_mb)
    bench.report.ratio("SuperLink's database, KB per station and round", grown_kb / count / done)


def _database_mb(path: Path) -> float:
    """With its journal."""
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*")) / 1e6


def idle(bench: Bench) -> None:
    """What stations cost that wait for work."""
    count = max(bench.counts)
    need = need_of(count, 0.0, 1)
    if not bench.fits(f"{count} stations at rest", replace(need, seconds=need.seconds + 2 * IDLE_S)):
        return
    bench.report.say(f"{count} stations connect, rest {IDLE_S:g} s and are watched for {IDLE_S:g} s ...")
    with bench.stations(count) as stations:
        # All are connected once an order of one round is over; some time after it they are at rest.
        bench.run(count, 0.001, 1)
        time.sleep(IDLE_S)
        pids = parts_of(bench.consortium.supervisor)
        pids = {name: pid for name, pid in pids.items() if name != "serverapp"}
        before = {name: read_process(pid) for name, pid in pids.items()}
        asked = requests_of(stations.counted())
        time.sleep(IDLE_S)
        after = {name: read_process(pid) for name, pid in pids.items()}
        asked = requests_of(stations.counted()) - asked
    bench.report.ratio(f"requests per second of one station ({count} at rest)", asked / IDLE_S / count)
    for name in pids:
        share = (after[name].cpu_s - before[name].cpu_s) / (after[name].at - before[name].at)
        bench.report.ratio(f"share of a core with {count} stations at rest: {name}", share)
        bench.report.ratio(f"share of a core per 100 stations at rest: {name}", 100 * share / count)


def large(bench: Bench) -> None:
    """Models of 100 and 400 MB, for as many stations as there is room for; beside each, the same bytes by bare TLS."""
    number = 3
    for counts, size_mb in (((3,), 1.0), ((10,), 100.0), ((3,), 100.0), ((10, 8, 6, 5, 4, 3), 400.0)):
        count = bench.room.most(counts, size_mb, number)
        if count is None:
            bench.fits(f"{min(counts)} stations, {size_mb:g} MB", need_of(min(counts), size_mb, number))
            continue
        if count < max(counts):
            bench.fits(f"{max(counts)} stations, {size_mb:g} MB", need_of(max(counts), size_mb, number))
        with bench.stations(count) as stations:
            bench.report.row(_measured(bench, stations, count, size_mb, number))
        if size_mb < 100:
            continue
        row = bench.report.found.rows[-1]
        bare_s = _bare_s(bench, count, size_mb)
        row["bare_s"] = bare_s
        name = f"{count} stations, {size_mb:g} MB"
        bench.report.ratio(f"bare TLS, s, {name}", bare_s)
        bench.report.ratio(f"time of a round / bare TLS, {name}", row["wall_s"] / bare_s)
        bench.report.ratio(f"MB per s through the orchestrator, {name}", 2 * count * size_mb / row["wall_s"])
    at = {(row["stations"], row["size_mb"]): row for row in bench.report.found.rows}
    for (count, size_mb), row in at.items():
        if size_mb == 400 and (3, 100.0) in at:
            linear = 4 * count / 3
            bench.report.ratio(
                f"time of a round, {count} stations of 400 MB / 3 of 100 MB (linear: {linear:.3g})",
                row["wall_s"] / at[3, 100.0]["wall_s"],
            )
        if size_mb == 100 and (3, 1.0) in at:
            for part in ("front", "serverapp"):
                bench.report.ratio(
                    f"memory of {part}, {count} stations of 100 MB / 3 of 1 MB",
                    row["peak_mb"][part] / at[3, 1.0]["peak_mb"][part],
                )


def _bare_s(bench: Bench, count: int, size_mb: float) -> float:
    home = bench.consortium.home
    bench.report.say(f"the same bytes by bare TLS: {count} x {size_mb:g} MB each way ...")
    return bare_tls_s(
        Bare(
            home.ca_certificate,
            home.server_certificate,
            home.server_key,
            bench.scratch,
            bench.elsewhere,
            int(size_mb * 1e6),
            count,
        )
    )


def stock(bench: Bench) -> None:
    """Stock SuperNodes, as many as simulated stations beside them, in the same run."""
    count, size_mb, number = 10, 0.1, 4
    need = Need(memory_mb=count * SUPERNODE_MB, seconds=60.0 + 4 * number * count)
    if not bench.fits(f"{count} stock SuperNodes", need):
        return
    bench.report.say(f"{count} stations, {size_mb:g} MB, {number} rounds ...")
    with bench.stations(count):
        cost = bench.run(count, size_mb, number)
    bench.report.say(f"stock Flower, {count} SuperNodes, {size_mb:g} MB, {number} rounds ...")
    folder = bench.scratch / "stock"
    folder.mkdir()
    with ExitStack() as stack:
        watches: list[Watch] = []

        def watch(superlink: int) -> None:
            watches.append(stack.enter_context(Watch(superlink, find=lambda pid: {"superlink": pid})))

        ends = stock_ends(folder, int(size_mb * 1e6), number, count, on_superlink=watch)
    own_s = cost.wall_s()
    stock_s = statistics.median(end - begin for begin, end in itertools.pairwise(ends))
    readings: Sequence[Reading] = watches[0].readings["superlink"]
    cpu_s = watches[0].cpu_s("superlink", ends[0], ends[-1]) / (len(ends) - 1)
    report = bench.report
    report.ratio("time of a round, ours, s", own_s)
    report.ratio("time of a round, stock / ours", stock_s / own_s)
    report.ratio("SuperLink's CPU s per station and round, ours", cost.cpu_s("superlink") / count)
    report.ratio("SuperLink's CPU per station and round, stock / ours", cpu_s / cost.cpu_s("superlink"))
    report.ratio(
        "SuperLink's memory, stock / ours",
        max(each.anonymous_mb for each in readings) / cost.peak_mb("superlink"),
    )


def _measured(bench: Bench, stations: Stations, count: int, size_mb: float, number: int) -> dict[str, Any]:
    need = need_of(count, size_mb, number)
    bench.report.say(f"{count} stations, {size_mb:g} MB, {number} rounds: about {need.seconds:.0f} s ...")
    before, cpu_before = stations.counted(), _cpu_s(stations)
    cost = bench.run(count, size_mb, number)
    after, cpu_after = stations.counted(), _cpu_s(stations)
    done = len(cost.rounds)
    missing = {name: code for each in cost.rounds for name, code in each.missing.items()}
    if missing:
        bench.report.left_out(
            f"{len(missing)} of {count} stations in some round, {size_mb:g} MB: {', '.join(sorted(set(missing.values())))}"
        )
    moved = {
        key: (total(after, key) - total(before, key)) / count / done / 1e6 for key in ("received", "sent")
    }
    wall_s = cost.wall_s()
    bench.report.say(f"  {wall_s:.2f} s a round")
    return {
        "stations": count,
        "size_mb": size_mb,
        "rounds": done,
        "wall_s": wall_s,
        "took_part": min(each.took_part for each in cost.rounds),
        "aggregate_s": statistics.median(each.aggregate_s for each in cost.rounds),
        "requests": (requests_of(after) - requests_of(before)) / count / done,
        **moved,
        "peak_mb": {part: cost.peak_mb(part) for part in PARTS},
        "cpu_s": {part: cost.cpu_s(part) for part in PARTS},
        "stations_cpu_s": (cpu_after - cpu_before) / done,
    }


def _cpu_s(stations: Stations) -> float:
    return sum(read_process(pid).cpu_s for pid in stations.pids)


def requests_of(counted: Mapping[str, Mapping[str, Any]]) -> int:
    """All requests of all stations."""
    return sum(value for each in counted.values() for value in each["requests"].values())
