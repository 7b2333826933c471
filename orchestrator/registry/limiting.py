"""How many requests a party, an address or a guesser may make: token buckets in bounded memory.

Knows no HTTP. What it protects: a flood from one address keeps nobody out who proves who they are, from that address or
another; guesses are slowed before they are looked at; and what it remembers does not grow with who asks. Bytes of a blob
are not requests: they have ceilings of their own.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_KEYS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second for as long as one likes, and so many at once."""

    per_s: float
    burst: float


class Buckets:
    """One bucket per key. Of more than `max_keys` the one that was used longest ago is forgotten, so full again.

    Args:
        rate: of each.
        max_keys: how many are remembered.
        clock: seconds that never go back.
    """

    def __init__(
        self, rate: Rate, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._max_keys, self._clock = rate, max_keys, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str) -> float:
        """Take one; return 0.0, or in how many seconds there is one where there is none now."""
        with self._lock:
            level = self._level(key)
            if level < 1.0:
                return (1.0 - level) / self._rate.per_s
            self._put(key, level - 1.0)
            return 0.0

    def give_back(self, key: str) -> None:
        """Return one that was taken."""
        with self._lock:
            self._put(key, min(self._level(key) + 1.0, self._rate.burst))

    def wait_s(self, key: str) -> float:
        """Return in how many seconds there is one, without taking it."""
        with self._lock:
            level = self._level(key)
        return 0.0 if level >= 1.0 else (1.0 - level) / self._rate.per_s

    def _level(self, key: str) -> float:
        level, since = self._levels.get(key, (self._rate.burst, 0.0))
        return min(self._rate.burst, level + max(0.0, self._clock() - since) * self._rate.per_s)

    def _put(self, key: str, level: float) -> None:
        self._levels[key] = (level, self._clock())
        self._levels.move_to_end(key)
        while len(self._levels) > self._max_keys:
            self._levels.popitem(last=False)


class Gate:
    """What is asked at the door, in order: `arrived`, then for who shows a proof `before_proof`, and `refused` or `proven`.

    Every method returns 0.0, or after how many seconds the party may come back.

    Args:
        address: of requests without a proof that holds, by address.
        principal: of requests of one party, wherever they come from.
        failures: of proofs that do not hold, by address.
        max_keys: how many addresses, and parties, are remembered.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        address: Rate,
        principal: Rate,
        failures: Rate,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = Buckets(address, max_keys, clock)
        self._principals = Buckets(principal, max_keys, clock)
        self._failures = Buckets(failures, max_keys, clock)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._max_keys = max_keys
        self._lock = threading.Lock()

    def remembered(self) -> int:
        """How many things it remembers: bounded by four times `max_keys`."""
        return len(self._addresses) + len(self._principals) + len(self._failures) + len(self._known)

    def arrived(self, address: str) -> float:
        """A request came."""
        return self._addresses.take(address)

    def before_proof(
        self, address: str, credential: str, over_s: float, is_station: Callable[[], bool]
    ) -> float:
        """It shows a proof: whether that is looked at now.

        A credential that held before is, and the key of a station in the register: neither a flood nor guesses from the same
        address keep them out. (Both are looked at in full each time: to be known opens nothing.)

        Args:
            address: from where.
            credential: a digest of what it shows.
            over_s: what `arrived` said.
            is_station: whether the key it shows is of a registered station.
        """
        wait_s = max(over_s, self._failures.wait_s(address))
        if wait_s <= 0.0:
            return 0.0
        with self._lock:
            known = credential in self._known
        return 0.0 if known or is_station() else wait_s

    def refused(self, address: str) -> float:
        """The proof does not hold."""
        return self._failures.take(address)

    def proven(self, address: str, credential: str, principal: str, over_s: float = 0.0) -> float:
        """The proof holds: the request is its party's, not its address's.

        Args:
            address: from where.
            credential: a digest of what it showed.
            principal: whose it is.
            over_s: what `arrived` said: what was not taken is not given back.
        """
        if over_s <= 0.0:
            self._addresses.give_back(address)
        with self._lock:
            self._known[credential] = None
            self._known.move_to_end(credential)
            while len(self._known) > self._max_keys:
                self._known.popitem(last=False)
        return self._principals.take(principal)
