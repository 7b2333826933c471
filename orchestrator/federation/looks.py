"""Looks that take long, at the bytes of updates: each begins as soon as its update is here, beside the thread that asks.

What works here reads files and returns a verdict, and writes nothing: what follows from a verdict is the asking thread's. However many
updates wait for their turn, as many are looked at at once as there are cores, each a piece at a time: memory does not grow with them.
"""

import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, Self

_FEWEST, _MOST = 2, 4


def looks_at_once() -> int:
    """How many updates are looked at at once: hashing and arithmetic leave Python's lock, so each uses a core."""
    return max(_FEWEST, min(_MOST, len(os.sched_getaffinity(0))))


LOOKS_AT_ONCE: Final = looks_at_once()


class Looks:
    """The looks of one question, each under a name. Use it as a context manager: it leaves nothing at work."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look")
        self._under_way: dict[str, Future[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> frozenset[str]:
        """What is looked at, or waits for it."""
        return frozenset(self._under_way)

    def begin(self, name: str, work: Callable[[], Any]) -> None:
        """Have something done, in its turn."""
        self._under_way[name] = self._pool.submit(work)

    def done(self) -> list[tuple[str, Any]]:
        """Return what came of those looks that are over, each once.

        Raises:
            Exception: whatever a look raised, here.
        """
        over = [name for name, future in self._under_way.items() if future.done()]
        return [(name, self._under_way.pop(name).result()) for name in over]

    def wait(self, timeout_s: float) -> None:
        """Wait until one is over."""
        wait(self._under_way.values(), timeout_s, FIRST_COMPLETED)

    def close(self) -> None:
        """Drop what waits for its turn, and let the others come to their end."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._under_way.clear()
