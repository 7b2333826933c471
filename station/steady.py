"""The time by which things end for good: the wall clock's, but for a leap forward that has not stood yet.

A clock that jumps ahead (a battery, a wrong server of time) must not wipe what it then says is over. So the wall clock is held against the
clock that nobody sets: where it ran ahead, the time goes on as it was, until the leap has stood for an hour. A host that
slept looks the same, and what was due meanwhile ends an hour late. Set back, the clock is believed at once: things end later.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

TOLERANCE: Final = timedelta(minutes=1)
STANDS_AFTER: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Look:
    wall: datetime
    monotonic: float

    def then(self, monotonic: float) -> datetime:
        return self.wall + timedelta(seconds=monotonic - self.monotonic)


class SteadyClock:
    """Tells the time by which things end for good; what it finds first, it believes.

    Args:
        wall: the clock of the host.
        monotonic: the clock that nobody sets.
    """

    def __init__(self, wall: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._believed: _Look | None = None
        self._leapt: _Look | None = None

    def __call__(self) -> datetime:
        """Return the time; never later than the wall clock's."""
        with self._lock:
            now = _Look(self._wall(), self._monotonic())
            if self._believed is None or now.wall <= self._believed.then(now.monotonic) + TOLERANCE:
                self._believed, self._leapt = now, None
            elif self._leapt is None or abs(now.wall - self._leapt.then(now.monotonic)) > TOLERANCE:
                self._leapt = now
            elif now.monotonic - self._leapt.monotonic >= STANDS_AFTER.total_seconds():
                self._believed, self._leapt = now, None
            return self._believed.wall if self._leapt is None else self._believed.then(now.monotonic)
