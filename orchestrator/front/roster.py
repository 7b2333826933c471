"""Which node keys are of the register's stations, read once for however many ask.

A stranger's key costs a look into memory, whichever key it is: a list of refused ones would be of no use against who makes a new
one for each request. Invariants: who was struck off is out within `STRUCK_OFF_S`; who was added is in within `ADDED_S`, or at once
where the register was followed in this process; what cannot be read lets nobody in.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from anyio.to_thread import run_sync

from policies.errors import PhtError, UnavailableError

STRUCK_OFF_S: Final = 5.0
ADDED_S: Final = 1.0
"""How often a key that is not there may have the register read again."""


class Roster:
    """The fingerprints of the node keys that are registered.

    Args:
        read: reads them.
        changes: counts how often the register was followed in this process.
        clock: seconds.
    """

    def __init__(
        self,
        read: Callable[[], frozenset[str]],
        changes: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._changes, self._clock = read, changes, clock
        self._known: frozenset[str] = frozenset()
        self._read_at: float | None = None
        self._at_change = -1
        self._fault: str | None = None
        self._reading = asyncio.Lock()

    async def has(self, fingerprint: str) -> bool:
        """Whether this is the key of a registered station.

        Raises:
            UnavailableError: the register cannot be read.
        """
        if not self._holds(fingerprint):
            async with self._reading:
                # Whoever waited for another's reading goes by that.
                if not self._holds(fingerprint):
                    await self._renew()
        if self._fault is not None:
            raise UnavailableError(self._fault)
        return fingerprint in self._known

    def _holds(self, fingerprint: str) -> bool:
        """Whether what was read last answers for this key now."""
        if self._read_at is None or self._at_change != self._changes():
            return False
        known = fingerprint in self._known and self._fault is None
        return self._clock() - self._read_at < (STRUCK_OFF_S if known else ADDED_S)

    async def _renew(self) -> None:
        # Before it is read: a change in between is read again.
        self._at_change = self._changes()
        try:
            self._known, self._fault = await run_sync(self._read), None
        except PhtError as error:
            self._known, self._fault = frozenset(), error.message
        self._read_at = self._clock()
