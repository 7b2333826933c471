"""Moments that change at every request and are written now and then: when a station or a token was last seen.

Kept in memory and written together, at most once in `interval_s`. So a moment that is read from the database is at most
that much older than the truth, also after a crash; who reads in the same process reads the truth.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from policies.errors import PhtError

_LOG = logging.getLogger(__name__)

STALE_S: Final = 10.0
"""How much older than the truth a moment in the database is at most."""


class Moments:
    """Notes moments by key.

    Args:
        write: makes some of them durable, in one transaction.
        interval_s: at most once in so many seconds.
        steady: seconds that never go back.
    """

    def __init__(
        self,
        write: Callable[[Mapping[str, datetime]], None],
        interval_s: float = STALE_S,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._interval_s, self._steady = write, interval_s, steady
        self._waiting: dict[str, datetime] = {}
        self._known: dict[str, datetime] = {}
        self._next = 0.0
        self._lock = threading.Lock()

    def note(self, key: str) -> None:
        """Note that it is now; keys are of known parties only, so there are as many as those."""
        moment = datetime.now(UTC)
        with self._lock:
            self._waiting[key] = self._known[key] = moment
            if self._steady() < self._next:
                return
            self._next = self._steady() + self._interval_s
            due, self._waiting = self._waiting, {}
        self._try(due)

    def newest(self, key: str, stored: datetime | None) -> datetime | None:
        """Return what is known here, or what is stored where that is later."""
        with self._lock:
            known = self._known.get(key)
        return known if stored is None or (known is not None and known > stored) else stored

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what waits, where its time has come; everything at the end of a life."""
        with self._lock:
            if not all_of_it and self._steady() < self._next:
                return
            due, self._waiting = self._waiting, {}
            self._next = self._steady() + self._interval_s if due else self._next
        if due:
            self._try(due)

    def _try(self, due: Mapping[str, datetime]) -> None:
        try:
            self._write(due)
        except PhtError as error:
            # Nobody is kept waiting, or turned away, because a moment could not be noted.
            _LOG.warning("moment_not_noted", extra={"code": type(error).__name__})
