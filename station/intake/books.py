"""Intake's books: its database, the handover log behind the outbox, and the clock; what every use case writes through."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from station.handover import HandoverLog
from station.intake import outbox
from station.storage.database import Database


@dataclass(frozen=True, slots=True)
class Books:
    """The database, the log and the clock, held together by one lock.

    Attributes:
        lock: held from a decision to its entry in the log, so that entries are appended in order.
    """

    database: Database
    log: HandoverLog
    clock: Callable[[], datetime]
    lock: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def decide(self) -> Iterator[Session]:
        """Run one transaction that may put entries in the outbox, and append them to the log after it.

        Raises:
            StorageError: the disk is full; a decision that was committed is handed over later.
        """
        with self.lock:
            with self.database.write() as session:
                yield session
            self.flush()

    def flush(self) -> int:
        """Append what waits in the outbox to the handover log; returns how many entries."""
        with self.lock:
            return outbox.flush(self.database, self.log, self.clock)

    def close(self) -> None:
        """Let go of the database."""
        with self.lock:
            self.database.close()
