"""How much of the SuperLink, and of the front's memory, one station may take at once.

The SuperLink's few places are given out in the order of asking. So that one station that asks without end costs the
others nothing, only two of its requests stand in that queue; a few more wait behind them, the next is told to come back.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

IN_QUEUE = 2
"""Requests of one station that the SuperLink has or that wait for its places; heartbeats, which have their own, as many."""

WAITING = 8
"""More of one station, with its poll that is held. An agent has one request of each of its threads under way."""

SMALL_BYTES = 64 * 1024
"""Polls, heartbeats and the like need no room: however many connections there are, these are a few MiB."""

ROOM_BYTES = 256 << 20
"""Larger bodies under way, of all stations together."""


@dataclass(slots=True)
class _Station:
    entered: int = 0
    body_bytes: int = 0
    queue: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_QUEUE))


class FleetPlaces:
    """Counts requests and bytes under way.

    Args:
        max_body_bytes: the largest body; one station has two of them under way at most.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._of_one = 2 * max_body_bytes
        self._room = max(ROOM_BYTES, self._of_one)
        self._body_bytes = 0
        self._stations: dict[tuple[str, bool], _Station] = {}

    @contextmanager
    def entered(
        self, fingerprint: str, body_bytes: int, *, heartbeat: bool
    ) -> Iterator[asyncio.Semaphore | None]:
        """Count one request until it is over; gives what it holds while it is with the SuperLink, None where there is no place."""
        name = (fingerprint, heartbeat)
        station = self._stations.setdefault(name, _Station())
        counted = body_bytes if body_bytes > SMALL_BYTES else 0
        if station.entered >= IN_QUEUE + WAITING or not self._has_room(station, counted):
            yield None
            return
        station.entered += 1
        station.body_bytes += counted
        self._body_bytes += counted
        try:
            yield station.queue
        finally:
            station.entered -= 1
            station.body_bytes -= counted
            self._body_bytes -= counted
            if not station.entered:
                del self._stations[name]

    def _has_room(self, station: _Station, counted: int) -> bool:
        return not counted or (
            station.body_bytes + counted <= self._of_one and self._body_bytes + counted <= self._room
        )
