"""Answers that an orchestrator can ask for without end: each is covered by an entry of the ledger before it leaves.

A recorded release that is asked for again, a refusal, an order that is still pending: of one kind, `LIMIT` an hour have an entry of their
own. The next has one that covers the rest of its hour: it says what kind of message may leave, for which order, and by which code. How
many did is said by an entry when the hour is over. So the ledger says of every message what it was before it left (invariant I1), and
grows by a bounded number of entries an hour. A crash loses the number of the hour under way, never an entry.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from policies.documents import canonical_json, digest_of, format_moment
from station.audit.log import system_clock
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType

LIMIT: Final = 20
PERIOD: Final = timedelta(hours=1)
MAX_KINDS: Final = 1000

_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Hour:
    began: datetime
    last: LedgerEntry
    entered: int = 0
    covered: int = 0


class Repeats:
    """Enters repeated answers.

    Args:
        ledger: the egress ledger.
        clock: returns the moment it is.
    """

    def __init__(self, ledger: EgressLedger, clock: Callable[[], datetime] = system_clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._hours: dict[_Key, _Hour] = {}
        self._lock = threading.Lock()

    def enter(self, kind: str, entry: LedgerEntry, *, code: str = "", about: str = "") -> None:
        """See to it that an entry covers this message.

        Args:
            kind: what happened again: ``repeated``, ``refused`` or ``pending``.
            entry: the message's own.
            code: that it carries.
            about: an order's digest, where orders cannot be invented; nothing otherwise.

        Raises:
            StorageError: the ledger cannot be written; the message must not leave.
        """
        now = self._clock().astimezone(UTC)
        with self._lock:
            self._end(lambda hour: not hour.began <= now < hour.began + PERIOD)
            key = (kind, code, about)
            if key not in self._hours and len(self._hours) >= MAX_KINDS:
                key = (kind, "", "")
            hour = self._hours.get(key)
            if hour is None:
                began = now.replace(minute=0, second=0, microsecond=0)
                hour = self._hours[key] = _Hour(began, entry)
            if hour.entered < LIMIT:
                self._ledger.append(entry)
                hour.entered += 1
                return
            if hour.covered == 0:
                self._ledger.append(_covering(key, hour.began, entry, {}))
            hour.last = entry
            hour.covered += 1

    def flush(self) -> None:
        """Say how many there were in hours that are over, and of all at the end of a life."""
        with self._lock:
            self._end(lambda _: True)

    def _end(self, over: Callable[[_Hour], bool]) -> None:
        for key, hour in [(key, hour) for key, hour in self._hours.items() if over(hour)]:
            del self._hours[key]
            if hour.covered:
                self._ledger.append(_covering(key, hour.began, hour.last, {key[0]: hour.covered}))


def _covering(key: _Key, began: datetime, entry: LedgerEntry, counts: dict[str, int]) -> LedgerEntry:
    """Return an entry for all of a kind in an hour; its digest is of what it says."""
    kind, code, about = key
    covered: dict[str, object] = {"hour": began, "calls_before": counts, "repeated": True}
    if entry.type is MessageType.RELEASE and about:
        # The very bytes that left before: the entry names them, as every repeat's does.
        return entry.model_copy(update=covered)
    told = canonical_json({"hour": format_moment(began), "kind": kind, "code": code, "order": about})
    covered |= {"digest": digest_of(told), "size": len(told), "arrays_digest": None, "arrays_size": None}
    if not about:
        covered |= {"order_digest": None, "round": None, "stage": None}
    return entry.model_copy(update=covered)
