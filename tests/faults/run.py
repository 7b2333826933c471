"""The randomised fault test: a consortium of real programs, and what dies in it.

    python -m tests.faults.run [--faults 200] [--seed N] [--form short|long] [--only "kill front" ...]

Prints the schedule first; the same seed, count and form draw it again. Ends with a table and, where something does not hold, with
what that is and exit code 1.
"""

import argparse
import math
import random
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import cage, invariants
from tests.faults.faults import NoVictimError, find, strike
from tests.faults.schedule import Event, Fault, Form, draw, told
from tests.faults.topology import STATIONS, Site, consortium, processes, until
from tests.faults.traffic import Traffic

STUCK_S = 600.0
"""A consortium that finishes no round for so long after a fault does not go on by itself."""
ROUNDS: dict[Form, int] = {"short": 6, "long": 12}
TWO_SERVERAPPS_S = 120.0
"""The second ends the first ten seconds after it has begun to wait for it, and on a busy machine takes long to begin."""
MISSED = 0.1
"""The share of the faults that may find nobody to hit: a container between two runs, say."""


@dataclass
class Report:
    """What came of it.

    Attributes:
        done: faults done, by kind.
        longest_s: from a fault put right to the next finished round, by kind.
        problems: what does not hold.
    """

    done: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    longest_s: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def short_of(self, wanted: int) -> list[str]:
        """What is said where fewer faults came than the schedule has."""
        found = []
        if self.done.total() + self.missed.total() < wanted:
            found.append(f"{self.done.total()} of {wanted} faults came")
        if self.missed.total() > max(1, MISSED * wanted):
            found.append(f"{self.missed.total()} of {wanted} faults found nobody to hit")
        return found

    def got_over(self, faults: tuple[Fault, ...], seconds: float) -> None:
        for fault in faults:
            self.longest_s[fault.kind] = max(self.longest_s.get(fault.kind, 0.0), seconds)


class Watch:
    """Looks all the time whether one order has two ServerApps."""

    def __init__(self, report: Report) -> None:
        self._report, self._over = report, threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._since: dict[str, float] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            carried: Counter[str] = Counter()
            for _, words in processes():
                if "orchestrator.federation" in words and "--run-folder" in words:
                    carried[words[words.index("--run-folder") + 1]] += 1
            now, twice = time.monotonic(), {folder for folder, count in carried.items() if count > 1}
            self._since = {folder: self._since.get(folder, now) for folder in twice}
            for folder, since in self._since.items():
                if now - since > TWO_SERVERAPPS_S:
                    problem = (
                        f"two ServerApps of one order for over {TWO_SERVERAPPS_S:.0f} s: {folder[-64:-56]}"
                    )
                    if problem not in self._report.problems:
                        self._report.problems.append(problem)


@dataclass
class Trial:
    """One fault test under way."""

    site: Site
    traffic: Traffic
    chance: random.Random
    report: Report = field(default_factory=Report)
    minutes: float = math.inf
    begun: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        minutes, seconds = divmod(time.monotonic() - self.begun, 60)
        print(f"[{int(minutes):3d}:{seconds:04.1f}] {text}", flush=True)

    def suffer(self, events: list[Event]) -> None:
        """Let every fault come, and wait until the consortium has got over the last one."""
        self.traffic.start()
        watch = Watch(self.report)
        watch.start()
        waiting: tuple[Event, int, float] | None = None
        try:
            for event in events:
                if waiting is not None and not event.hasty:
                    self._get_over(*waiting)
                if time.monotonic() - self.begun > 60 * self.minutes:
                    self.say(f"{self.minutes:g} minutes are over: no further faults")
                    break
                threading.Event().wait(event.pause_s)
                self._strike(event)
                waiting = (event, self.traffic.rounds_done(), time.monotonic())
            if waiting is not None:
                self._get_over(*waiting)
            self.traffic.enough()
            self.say("the last fault is got over; the runs under way go on to their end")
            until(lambda: not self.traffic.active(), STUCK_S, 0.5)
        finally:
            self.traffic.enough()
            watch.stop()
        for line in self.traffic.endings():
            self.say(line)

    def _strike(self, event: Event) -> None:
        rights: list[Callable[[], None]] = []
        for index, fault in enumerate(event.faults):
            if index:
                threading.Event().wait(event.after_s)
            try:
                rights.append(strike(self.site, fault, self.chance))
            except NoVictimError:
                self.report.missed[fault.kind] += 1
                self.say(f"{event.number:>4}  {fault}: nobody to hit")
            else:
                self.report.done[fault.kind] += 1
                self.say(f"{event.number:>4}  {fault}  | {self.traffic.told()}")
        for put_right in rights:
            put_right()

    def _get_over(self, event: Event, before: int, since: float) -> None:
        got_over = until(lambda: self.traffic.rounds_done() > before, STUCK_S, 0.1)
        seconds = time.monotonic() - since
        if got_over:
            self.report.got_over(event.faults, seconds)
            self.say(f"{event.number:>4}  a round {seconds:.1f} s later")
        else:
            self.report.problems.append(
                f"no round in {STUCK_S:.0f} s after fault {event.number}: {' and '.join(map(str, event.faults))}"
            )
            raise StuckError

    def settle(self) -> None:
        """Everything that was killed is up again before anybody looks."""
        for unit in self.site.units.values():
            unit.await_ready()
        for hospital in self.site.hospitals:
            for service in ("launcher", "intake", "compute"):
                if not until(lambda h=hospital, s=service: find(self.site, s, h.name), 240):
                    self.report.problems.append(f"{hospital.name} has no {service}")


class StuckError(Exception):
    """The consortium does not go on."""


def inside(scratch: Path, data: Path, cgroup: str, choices: argparse.Namespace) -> int:
    """Found the consortium, let the faults come, look at what is left."""
    events = draw(
        choices.seed, choices.faults, choices.form, STATIONS, tuple(filter(None, choices.only.split(",")))
    )
    print(f"seed {choices.seed}, {choices.faults} faults, {choices.form} form:", flush=True)
    for line in told(events):
        print(line, flush=True)
    chance = random.Random(choices.seed)
    begun = time.monotonic()
    problems: list[str] = []
    report = Report()
    (scratch / "kept").mkdir()
    try:
        with consortium(scratch, data, cgroup, postgres=choices.form == "long") as (
            site,
            researcher,
            approved,
        ):
            traffic = Traffic(site, researcher, approved, random.Random(choices.seed), ROUNDS[choices.form])
            trial = Trial(site, traffic, chance, report, choices.minutes)
            trial.say(f"the consortium stands after {time.monotonic() - begun:.0f} s")
            try:
                trial.suffer(events)
                trial.settle()
                problems += report.short_of(choices.faults) if math.isinf(choices.minutes) else []
                problems += invariants.broken(site, traffic)
                trial.say("looked at everything")
            finally:
                _keep(site, scratch / "kept")
    except StuckError:
        pass
    except Exception:  # noqa: BLE001 - the outermost boundary; told, and red
        traceback.print_exc()
        problems.append("the test itself ended with a fault")
    problems = report.problems + problems
    show(report, problems, time.monotonic() - begun)
    return 1 if problems else 0


def _keep(site: Site, kept: Path) -> None:
    """What somebody wants to read afterwards: logs, states, rounds; no images, no weights."""
    for party in ("orchestrator", *STATIONS):
        home = site.disk(party) / "home"
        for pattern in (
            "logs/*",
            "runs/*/*.json*",
            "runs/*/*.log",
            "compute/station.db*",
            "*.db*",
            "superlink/*.db*",
        ):
            for path in home.glob(pattern):
                target = kept / party / path.relative_to(home)
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file():
                    shutil.copy(path, target)


def show(report: Report, problems: list[str], seconds: float) -> None:
    """The table, and what does not hold."""
    print(f"\n{'fault':<24}{'done':>6}{'nobody':>8}{'longest to the next round, s':>32}")
    for kind in sorted(set(report.done) | set(report.missed)):
        longest = report.longest_s.get(kind)
        print(
            f"{kind:<24}{report.done[kind]:>6}{report.missed[kind] or '':>8}"
            f"{f'{longest:.1f}' if longest is not None else '-':>32}"
        )
    print(f"{'all':<24}{report.done.total():>6}   in {seconds:.0f} s")
    for problem in problems:
        print(f"BROKEN: {problem}")
    print(
        "nothing lost, nothing doubled" if not problems else f"{len(problems)} things do not hold", flush=True
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; what a seed is not given for is drawn and said."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no further faults after so long")
    parser.add_argument("--form", choices=("short", "long"), default="long")
    parser.add_argument("--only", default="", help="kinds of faults to draw from: kill,cut station,...")
    parser.add_argument("--keep", type=Path, default=None, help="where logs go when something does not hold")
    parser.add_argument("--inside", nargs=3, default=None, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Parse; run in a cage."""
    choices = parse(arguments)
    if choices.inside is not None:
        scratch, data, cgroup = choices.inside
        return cage.as_init(lambda: inside(Path(scratch), Path(data), cgroup, choices))
    if choices.seed is None:
        choices.seed = random.SystemRandom().randrange(10**6)
        arguments = [*arguments, "--seed", str(choices.seed)]
    return cage.run_caged("tests.faults.run", arguments, keep=choices.keep)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
