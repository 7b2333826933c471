"""When answers leave: at the next multiple of the policy's quantum, counted from when the station took up the instruction.

How long a train computes is its own to choose, so the moment of an answer could tell what it found. With a quantum, everything that the
train can have influenced waits: a release, a failure, what is withheld, and what is recorded of any of them, since the heads of the
chains and the station's statements leave too. Recording comes after the wait for that reason: a head that moves tells when something was
recorded, whatever its salt hides of the entry. So a crash in the wait costs what a crash in the computation costs: the train is asked
again, and nothing was told of the first answer.

Some of it must be on record before the answer is: what noise costs is charged before it is drawn, and a container that scores an update
is audited as it starts and ends. Anybody who asks for anything is told the heads of that moment. So with noise, or with a limit on
membership, what a train answered waits for one multiple before it is judged, and its scoring for another before that is on record.

A container's hello is such an answer. What the station decides by itself, before the train is asked, goes at once; so does the end that
comes from outside (a withdrawal, the operator's word), alike whether the train was done or not.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from policies.errors import UnavailableError

_LOOK_S: Final = 0.1
"""Between two looks at whether the wait is over for another reason."""


class Moments:
    """Waits; one for all runs of a station, each in its own thread.

    Args:
        clock: seconds that never go back.
        wait: waits so many seconds, or until the station stops; returns whether it does.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], bool] | None = None
    ) -> None:
        self._clock = clock
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait

    def now(self) -> float:
        """Return the moment it is, in this clock's seconds."""
        return self._clock()

    def stop(self) -> None:
        """End every wait: the station stops, and what was waiting is not answered by this life."""
        self._stopping.set()

    def hold(self, since: float, quantum_s: float, over: Callable[[], bool] = lambda: False) -> int | None:
        """Wait for the next multiple of the quantum.

        Args:
            since: when the instruction was taken up, by `now`.
            quantum_s: the policy's; 0 waits for nothing.
            over: whether the wait is over for a reason from outside; asked every moment.

        Returns:
            How many quanta have passed then, at least 1; None where it was over before, 0 without a quantum.

        Raises:
            UnavailableError: the station stops.
        """
        if quantum_s <= 0:
            return 0
        passed = math.floor((self._clock() - since) / quantum_s) + 1
        until = since + passed * quantum_s
        while (left := until - self._clock()) > 0:
            if over():
                return None
            if self._wait(min(left, _LOOK_S)):
                raise UnavailableError("the station stops", hint="The next start answers.")
        return None if over() else passed

    @contextmanager
    def holding(
        self, since: float, quantum_s: float, over: Callable[[], bool] = lambda: False
    ) -> Iterator["Held"]:
        """Do what is inside, and end at the next multiple, however it went; see `hold`."""
        held = Held(quantum_s)
        try:
            yield held
        finally:
            held.quanta = self.hold(since, quantum_s, over)


@dataclass(slots=True)
class Held:
    """How a wait went.

    Attributes:
        quantum_s: the policy's.
        quanta: how many passed; None where the wait was over before.
    """

    quantum_s: float
    quanta: int | None = 0

    @property
    def over(self) -> bool:
        """Whether something from outside ended it."""
        return self.quanta is None

    def seconds(self, taken: float) -> float:
        """Return the duration to report: one within the quantum that the answer leaves in, or what it took where there is none."""
        return within(self.quanta, self.quantum_s) if self.quanta else taken


def within(quanta: int, quantum_s: float) -> float:
    """Return a duration that lies in the last of so many quanta: what is reported beside the answer is the same multiple.

    >>> [math.ceil(within(n, 0.1) / 0.1) for n in (1, 3, 7)]
    [1, 3, 7]
    """
    return (quanta - 0.5) * quantum_s
