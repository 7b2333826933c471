"""Which faults come, to whom, when and for how long: all drawn before the first one, from one seed.

Equal seeds, counts and forms give equal schedules. The schedule says after which pause a fault comes; what the victim is doing at
that instant is the machine's own affair.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Form = Literal["short", "long"]

KILLED = (
    "serverapp", "superlink", "front", "worker", "orchestrator", "witness",
    "compute", "launcher", "intake", "station", "container", "engine", "database",
)  # fmt: skip
"""Who is killed with SIGKILL; the names of the processes in `faults.find`."""
AT_STATIONS = frozenset({"compute", "launcher", "intake", "station", "container"})
FROZEN = ("serverapp", "superlink", "front", "worker", "compute", "launcher")

_WEIGHTS = {
    **{f"kill {who}": 4 for who in KILLED},
    "kill witness": 2,
    "kill intake": 2,
    "cut station": 8,
    "cut orchestrator": 4,
    "fill station": 5,
    "fill orchestrator": 5,
    "clock station": 5,
    "clock orchestrator": 4,
    **{f"freeze {who}": 1 for who in FROZEN},
}
"""Each kind of fault and how often it is drawn."""
SECONDS: dict[Form, dict[str, tuple[float, float]]] = {
    "short": {"cut": (1, 4), "fill": (1, 4), "clock": (3, 6), "freeze": (2, 4)},
    "long": {"cut": (1, 10), "fill": (2, 15), "clock": (3, 15), "freeze": (2, 30)},
}
NOT_IN: dict[Form, frozenset[str]] = {"short": frozenset({"kill database"}), "long": frozenset()}
"""In the short form the orchestrator's state lies in SQLite."""
PAUSE_S: dict[Form, float] = {"short": 1.5, "long": 3.0}
HASTY = 0.35
"""How often a fault comes before the one before is got over."""
TWO_AT_ONCE = 0.15
CUT_FOR_MINUTES = (60.0, 180.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: a key of the table of kinds, such as ``kill front``.
        station: whose; empty for the orchestrator's and the engine.
        seconds: until it is put right; 0 for a kill.
        step_s: of a clock, by how much.
    """

    kind: str
    station: str = ""
    seconds: float = 0.0
    step_s: int = 0

    def __str__(self) -> str:
        words = [self.kind]
        if self.station:
            words.append(f"({self.station})")
        if self.step_s:
            words.append(f"by {self.step_s:+d} s")
        if self.seconds:
            words.append(f"for {self.seconds:.1f} s")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Event:
    """One or two faults at once.

    Attributes:
        pause_s: after the one before was put right and, unless `hasty`, a round was finished since.
        hasty: comes before the one before is got over.
        after_s: how much later the second of two faults comes.
    """

    number: int
    pause_s: float
    hasty: bool
    faults: tuple[Fault, ...]
    after_s: float = 0.0

    def __str__(self) -> str:
        manner = "at once" if self.hasty else "after a round"
        return (
            f"{self.number:>4}  {manner}, {self.pause_s:.2f} s: "
            + f" and {self.after_s:.2f} s later ".join(map(str, self.faults))
        )


def draw(
    seed: int, count: int, form: Form, stations: tuple[str, ...], only: tuple[str, ...] = ()
) -> list[Event]:
    """Draw a schedule of so many faults; two at once count as two.

    Args:
        seed: equal seeds give equal schedules.
        count: of faults.
        form: how long they last.
        stations: whom they may hit.
        only: kinds to draw from; all where empty.
    """
    chance = random.Random(f"{seed} {count} {form} {' '.join(only)}")
    kinds = _kinds(chance, count, form, only)
    events: list[Event] = []
    while kinds:
        faults = [_fault(chance, kinds.pop(), form, stations)]
        if kinds and chance.random() < TWO_AT_ONCE:
            faults.append(_fault(chance, kinds.pop(), form, stations))
        events.append(
            Event(
                number=len(events) + 1,
                pause_s=round(chance.uniform(0, PAUSE_S[form]), 2),
                hasty=bool(events) and chance.random() < HASTY,
                faults=tuple(faults),
                after_s=round(chance.uniform(0, 2), 2),
            )
        )
    return events


def _kinds(chance: random.Random, count: int, form: Form, only: tuple[str, ...]) -> list[str]:
    """Every kind comes once before the rest are drawn by weight, where there are as many faults as kinds."""
    weights = {
        kind: weight
        for kind, weight in _WEIGHTS.items()
        if kind not in NOT_IN[form] and (not only or {kind, kind.split(" ")[0]} & set(only))
    }
    if not weights:
        raise ValueError("there are no such kinds of faults")
    kinds = list(weights)
    chance.shuffle(kinds)
    kinds = kinds[:count]
    kinds += chance.choices(list(weights), list(weights.values()), k=count - len(kinds))
    chance.shuffle(kinds)
    return kinds


def _fault(chance: random.Random, kind: str, form: Form, stations: tuple[str, ...]) -> Fault:
    what, who = kind.split(" ")
    station = chance.choice(stations) if who in AT_STATIONS else ""
    if what == "kill":
        return Fault(kind, station)
    seconds = chance.uniform(*SECONDS[form][what])
    if form == "long" and kind == "cut station" and chance.random() < 0.15:
        seconds = chance.uniform(*CUT_FOR_MINUTES)
    step_s = 0
    if what == "clock":
        step_s = chance.choice((-1, 1)) * chance.choice((90, 400, 1800, 7200))
    return Fault(kind, station, round(seconds, 1), step_s)


def told(events: list[Event]) -> Iterator[str]:
    """The schedule, line by line."""
    for event in events:
        yield str(event)
