"""What others can cause without end is written so many times an hour, and counted after that.

An orchestrator may send instructions that are refused for as long as it likes; each is answered (and that answer is in the
egress ledger), but the audit must not fill the disk: of one kind, `LIMIT` an hour are written as they happen, the rest as one
event with their number when the hour is over. A crash loses the number of the hour under way, never an event that was written.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.orm import Session

from station.audit.events import AuditRecord

LIMIT: Final = 20
PERIOD_S: Final = 3600.0
MAX_KINDS: Final = 1000

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Window:
    began: float
    record: AuditRecord
    written: int = 0
    left_out: int = 0


class Writer(Protocol):
    """The audit."""

    def append(self, record: AuditRecord) -> int:
        """Write one event."""

    def append_in(self, session: Session, record: AuditRecord) -> int:
        """Write one event inside the caller's write transaction."""


class Thinner:
    """Writes events through to the audit, or counts them.

    Args:
        audit: where they are written.
        limit: of one kind, in one period.
        period_s: seconds.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        audit: Writer,
        limit: int = LIMIT,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audit, self._limit, self._period_s, self._clock = audit, limit, period_s, clock
        self._windows: dict[_Key, _Window] = {}
        self._lock = threading.Lock()

    def append(self, record: AuditRecord, about: str = "") -> None:
        """Write an event in a transaction of its own, or count it.

        Args:
            record: the event.
            about: what makes it one of a kind beside its event, outcome and first code: an order's digest, where orders
                cannot be invented; nothing otherwise.
        """
        self.flush()
        if self._take(record, about):
            self._audit.append(record)

    def append_in(self, session: Session, record: AuditRecord, about: str = "") -> None:
        """Write an event in the caller's transaction, or count it."""
        if self._take(record, about):
            self._audit.append_in(session, record)

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what was counted in hours that are over; everything at the end of a life."""
        for record in self._over(all_of_it=all_of_it):
            self._audit.append(record)

    def _take(self, record: AuditRecord, about: str) -> bool:
        key = (record.event.value, record.outcome, record.codes[0] if record.codes else "", about)
        with self._lock:
            if key not in self._windows and len(self._windows) >= MAX_KINDS:
                key = (*key[:3], "")
            window = self._windows.setdefault(key, _Window(self._clock(), record))
            if window.written < self._limit:
                window.written += 1
                return True
            window.left_out += 1
            window.record = record
            return False

    def _over(self, *, all_of_it: bool = False) -> list[AuditRecord]:
        now = self._clock()
        with self._lock:
            over = [
                key for key, one in self._windows.items() if all_of_it or now - one.began >= self._period_s
            ]
            windows = [self._windows.pop(key) for key in over]
        return [_summary(window) for window in windows if window.left_out]


def _summary(window: _Window) -> AuditRecord:
    last = window.record
    return last.model_copy(
        update={
            "numbers": {"left_out": window.left_out, "written": window.written},
            "detail": f"{window.left_out} more of this kind within an hour; the last: {last.detail}"[:2000],
        }
    )
