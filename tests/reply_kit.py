"""Answers that are attacks: the selftest's hostile train lies on its socket, and what the station's session makes of it is measured."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from selftest_kit import Attacked

from policies.wire.frames import Pace
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import MIB, ReplyLimits, TrainFailure, TrainReply, TrainRequest
from station.selftest.attacks import Attack
from station.selftest.runner import Selftest

HASTY = Pace(grace_s=1.0)
"""Shorter than the station's, so that a slow train is found out in a test's time."""

FLAT_BYTES = 96 * MIB
"""What an answer may cost in memory, whatever its length: the largest head that is read takes half of it."""

NOT_SOON_S = 300.0
"""A deadline that ends no attack here: whatever ends sooner, something else has ended."""


@dataclass(frozen=True)
class Seen:
    """What became of one exchange.

    Attributes:
        outcome: of the session.
        seconds: it took.
        grown_bytes: the most this process held at once, above what it held before.
        descriptors: open after it, above what was open before.
        stored: the reply's file, where it was left.
    """

    outcome: TrainReply | TrainFailure
    seconds: float
    grown_bytes: int
    descriptors: int
    stored: Path

    @property
    def failure(self) -> TrainFailure:
        """The failure that it must have ended as: in time, without a file, a descriptor or memory left."""
        assert isinstance(self.outcome, TrainFailure), self.outcome
        assert not self.stored.exists()
        self.require_flat()
        return self.outcome

    @property
    def reply(self) -> TrainReply:
        assert isinstance(self.outcome, TrainReply), self.outcome
        self.require_flat()
        return self.outcome

    def require_flat(self) -> None:
        assert self.seconds < NOT_SOON_S / 2
        assert self.grown_bytes < FLAT_BYTES, self.grown_bytes
        # The session's own may be closed by now.
        assert self.descriptors <= 0, self.descriptors


@dataclass(frozen=True)
class Liar:
    """A running hostile train."""

    session: TrainSession
    folder: Path

    def ask(
        self,
        lie: str,
        *,
        inbound: Path | None = None,
        max_arrays_bytes: int = MIB,
        timeout_s: float = NOT_SOON_S,
    ) -> Seen:
        """Ask it for one lie."""
        stored = self.folder / "reply.safetensors"
        before, open_before, began = forget_peak(), _descriptors(), time.monotonic()
        outcome = self.session.exchange(
            TrainRequest("train", 1, {"lie": lie}, inbound), ReplyLimits(stored, max_arrays_bytes), timeout_s
        )
        seconds = time.monotonic() - began
        return Seen(outcome, seconds, memory_of("VmHWM") - before, _descriptors() - open_before, stored)

    def honest(self) -> TrainReply:
        """A request that it answers as it should."""
        seen = self.ask("honest")
        assert isinstance(seen.outcome, TrainReply), seen.outcome
        return seen.outcome


class Liars:
    """Starts hostile trains, one per attack, beside one that must be served all the while and after."""

    def __init__(self, attacked: Attacked) -> None:
        self._attacked = attacked
        self._held = ExitStack()
        self._bystander: TrainSession | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_how: object) -> None:
        self._held.close()

    @contextmanager
    def liar(self, folder: Path, pace: Pace = HASTY) -> Iterator[Liar]:
        """Yield a hostile train of its own."""
        if self._bystander is None or not self._bystander.alive:
            self._bystander = self._held.enter_context(self._started(Pace()))
        bystander = Liar(self._bystander, folder)
        bystander.honest()
        with self._started(pace) as session:
            yield Liar(session, folder)
        bystander.honest()

    @contextmanager
    def _started(self, pace: Pace) -> Iterator[TrainSession]:
        place = self._attacked.place
        with Selftest(place, self._attacked.ground, self._attacked.home)._folders(
            Attack("reply", "", "")
        ) as spec:
            session = TrainSandbox(place.launcher, start_timeout_s=120, pace=pace).start(spec)
            try:
                yield session
            finally:
                session.stop()


def forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return memory_of("VmRSS")


def memory_of(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
