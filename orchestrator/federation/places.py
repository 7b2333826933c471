"""Who is next: fair among requesters, and no station has more runs at once than it is asked to carry. Pure.

The requester with the fewest runs under way is next, then the one who waited longest for a turn; of one requester's orders the oldest.
An order of which a station is full waits, and its place is kept for it at all of its stations: who comes later may go first only where that
takes nothing from it, so that an order of many stations is not kept waiting for ever by orders of few.
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


UNLIMITED: Final = Limits(1 << 30, 1 << 30)


@dataclass(frozen=True, slots=True)
class Running:
    """A run under way."""

    requester: str
    stations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An order that waits.

    Attributes:
        digest: of the order.
        requester: whose it is.
        stations: that it asks.
        resumed: it was under way when the last worker ended: it is taken up again before anything new.
    """

    digest: str
    requester: str
    stations: tuple[str, ...]
    resumed: bool = False


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
    used = Counter(name for run in under_way for name in run.stations)
    runs = Counter(run.requester for run in under_way)
    chosen: str | None = None
    places: dict[str, Place] = {}
    for order in _in_turn(waiting, runs, served):
        full = tuple(name for name in order.stations if used[name] >= limits.runs_per_station)
        used.update(order.stations)
        if chosen is None and not full and len(under_way) < limits.parallel_runs:
            chosen = order.digest
            continue
        if len(under_way) + (chosen is not None) >= limits.parallel_runs:
            places[order.digest] = Place(len(places) + 1, RUNS_FULL)
        else:
            places[order.digest] = Place(len(places) + 1, STATIONS_FULL if full else "", full)
    return chosen, places


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
