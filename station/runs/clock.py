"""How long each order's containers ran, over restarts of container and station: what a policy's `run_hours` bounds.

Durable, and only growing. A container's time counts from before it is started until it is known to be gone. Where the station was
killed in between, it counts until the next start removed the container; where the whole host went down, until the station was last
seen at work, since no container outlives its host. A map train's counts while a message is under way: no container of it runs between.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Float, String, event, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from station.audit.log import system_clock
from station.storage.database import Database
from station.storage.schema import Base, UtcTime

_BEAT_S: Final = 30.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class RunClockRow(Base):
    """What an order's containers used; `running_since` while one may run. Never removed, never less (triggers hold that)."""

    __tablename__ = "run_clocks"

    order_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    used_s: Mapped[float] = mapped_column(Float)
    running_since: Mapped[datetime | None] = mapped_column(UtcTime)
    last_seen: Mapped[datetime | None] = mapped_column(UtcTime)
    boot: Mapped[str | None] = mapped_column(String(64))


class RunClock:
    """Counts the seconds of containers, per order.

    Args:
        database: the station's compute database.
        now: the wall clock; used only over a restart of the station.
        monotonic: the clock that nobody sets.
        boot: names this life of the host.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime] = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
        boot: Callable[[], str] = lambda: _BOOT_ID.read_text("ascii").strip(),
    ) -> None:
        self._database = database
        self._now = now
        self._monotonic = monotonic
        self._boot = boot
        self._running: dict[str, float] = {}
        self._beaten = monotonic()
        self._guard = threading.Lock()

    def left_s(self, order_digest: str, run_hours: float) -> float:
        """Return how long the order's containers may still run, all of them together; 0 when nothing is left."""
        with self._database.read() as session:
            row = session.get(RunClockRow, order_digest)
            used = 0.0 if row is None else row.used_s
        return max(0.0, run_hours * 3600 - used - self._elapsed(order_digest))

    def is_spent(self, order_digest: str, run_hours: float) -> bool:
        """Whether the order's containers have run, all together, as long as its policy grants: less than a second is left."""
        return self.left_s(order_digest, run_hours) < 1

    def start_in(self, session: Session, order_digest: str) -> None:
        """Count from now on, within the transaction that records the start of a container."""
        row = session.get(RunClockRow, order_digest)
        if row is None:
            row = RunClockRow(order_digest=order_digest, used_s=0.0)
            session.add(row)
        else:
            # One that was not counted to its end has ended: an order has one container at a time.
            row.used_s += self._elapsed(order_digest)
        row.running_since = row.last_seen = self._now()
        row.boot = self._boot()
        began = self._monotonic()

        def committed(_session: Session) -> None:
            with self._guard:
                self._running[order_digest] = began

        # A start that is rolled back never was: nothing runs, so nothing counts.
        event.listen(session, "after_commit", committed, once=True)

    @contextmanager
    def counting(self, order_digest: str) -> Iterator[None]:
        """Count while the block runs, however it ends."""
        with self._database.write() as session:
            self.start_in(session, order_digest)
        try:
            yield
        finally:
            self.stop(order_digest)

    def stop(self, order_digest: str) -> None:
        """Count until now, durably; nothing where nothing ran."""
        elapsed = self._elapsed(order_digest)
        with self._database.write() as session:
            row = session.get(RunClockRow, order_digest)
            if row is None or row.running_since is None:
                return
            row.used_s += elapsed
            row.running_since = row.last_seen = row.boot = None
        with self._guard:
            self._running.pop(order_digest, None)

    def beat(self) -> None:
        """Note, twice a minute at most, that the station is at work."""
        now = self._monotonic()
        if not self._running or now - self._beaten < _BEAT_S:
            return
        with self._database.write() as session:
            for row in session.scalars(select(RunClockRow).where(RunClockRow.running_since.is_not(None))):
                row.last_seen = self._now()
        self._beaten = now

    def recover(self) -> None:
        """After a start, once the containers of an earlier life are gone: count what they ran."""
        now, boot = self._now(), self._boot()
        with self._database.write() as session:
            for row in session.scalars(select(RunClockRow).where(RunClockRow.running_since.is_not(None))):
                began, seen = row.running_since, row.last_seen
                until = now if row.boot == boot or seen is None else seen
                if began is not None:
                    row.used_s += max(0.0, (until - began).total_seconds())
                row.running_since = row.last_seen = row.boot = None

    def _elapsed(self, order_digest: str) -> float:
        with self._guard:
            began = self._running.get(order_digest)
        return 0.0 if began is None else max(0.0, self._monotonic() - began)
