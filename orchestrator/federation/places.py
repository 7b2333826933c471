"""Who is next: fair among requesters, and no station has more runs at once than it is asked to carry. Pure.

The requester with the fewest runs under way is next, then the one who waited longest for a turn; of one requester's orders the oldest.
An order of which a station is full waits, and its place is kept for it at all of its stations: who comes later may go first only where that
takes nothing from it, so that an order of many stations is not kept waiting for ever by orders of few.

A run that only waits for people takes no place from others: its hospitals may take days, and compute nothing meanwhile. What it may take
is a process, of which there are so many that no one requester can have all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

RUNS_FULL: Final = "RUNS_FULL"
"""As many runs as there may be at once."""
STATIONS_FULL: Final = "STATIONS_FULL"
"""A station carries as many runs as it is asked to at once, or keeps its place for an order that comes first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many runs there are at once.

    Attributes:
        parallel_runs: in all.
        runs_per_station: that a station takes part in.
    """

    parallel_runs: int
    runs_per_station: int

    @property
    def processes(self) -> int:
        """Runs in all, with those that only wait for people."""
        return 4 * self.parallel_runs


UNLIMITED: Final = Limits(1 << 30, 1 << 30)


@dataclass(frozen=True, slots=True)
class Running:
    """A run under way; one that only waits for people counts as a process alone."""

    requester: str
    stations: tuple[str, ...]
    waits_for_people: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that waits.

    Attributes:
        digest: of the order.
        requester: whose it is.
        stations: that it asks.
        resumed: it was under way when the last worker ended: it is taken up again before anything new.
        waits_for_people: alone, when the last worker ended.
    """

    digest: str
    requester: str
    stations: tuple[str, ...]
    resumed: bool = False
    waits_for_people: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where an order stands.

    Attributes:
        position: in the queue, from 1.
        waiting: why it is not taken up; a code.
        full: the stations it waits for.
    """

    position: int
    waiting: str
    full: tuple[str, ...] = ()


def choose(
    waiting: Sequence[Waiting], running: Iterable[Running], served: Mapping[str, int], limits: Limits
) -> tuple[str | None, dict[str, Place]]:
    """Return the order to take up next, if one can be, and where the others stand.

    Args:
        waiting: orders, the oldest first.
        running: what is under way.
        served: to each requester when they were served last, as a number that grows.
        limits: of runs at once.
    """
    under_way = list(running)
    counted = [run for run in under_way if not run.waits_for_people]
    used = Counter(name for run in counted for name in run.stations)
    held = Counter(run.requester for run in under_way)
    chosen: str | None = None
    places: dict[str, Place] = {}
    for order in _in_turn(waiting, held, served):
        full = tuple(name for name in order.stations if used[name] >= limits.runs_per_station)
        if order.waits_for_people:
            full, room = (), len(under_way) < limits.processes
        elif _has_its_share(order, waiting, counted, held, limits):
            places[order.digest] = Place(len(places) + 1, RUNS_FULL)
            continue
        else:
            used.update(order.stations)
            room = len(counted) < limits.parallel_runs and len(under_way) < limits.processes
        if chosen is None and not full and room:
            chosen = order.digest
            continue
        taken = chosen is not None
        if not room or len(counted) + taken >= limits.parallel_runs:
            places[order.digest] = Place(len(places) + 1, RUNS_FULL)
        else:
            places[order.digest] = Place(len(places) + 1, STATIONS_FULL if full else "", full)
    return chosen, places


def _has_its_share(
    order: Waiting,
    waiting: Sequence[Waiting],
    counted: Sequence[Running],
    held: Mapping[str, int],
    limits: Limits,
) -> bool:
    """Whether a place is kept for somebody else: one of all while another's order waits, and some of the processes always."""
    if order.resumed:
        return False
    if held.get(order.requester, 0) >= limits.processes - limits.parallel_runs > 0:
        return True
    another_waits = any(each.requester != order.requester for each in waiting)
    runs = sum(run.requester == order.requester for run in counted)
    return another_waits and runs >= max(1, limits.parallel_runs - 1)


def _in_turn(
    waiting: Sequence[Waiting], runs: Mapping[str, int], served: Mapping[str, int]
) -> Iterable[Waiting]:
    yield from (order for order in waiting if order.resumed)
    queues: dict[str, list[Waiting]] = {}
    for order in waiting:
        if not order.resumed:
            queues.setdefault(order.requester, []).append(order)
    first = {requester: number for number, requester in enumerate(queues)}
    count = Counter({requester: runs.get(requester, 0) for requester in queues})
    turn = max(served.values(), default=0)
    turns = dict(served)
    while queues:
        requester = min(queues, key=lambda name: (count[name], turns.get(name, 0), first[name]))
        yield queues[requester].pop(0)
        turn += 1
        count[requester] += 1
        turns[requester] = turn
        if not queues[requester]:
            del queues[requester]
