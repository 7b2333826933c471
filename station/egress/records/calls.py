"""The calls that carry no message of ours: heartbeats, polls, questions. Each is covered by an entry of the ledger before it leaves.

One entry an hour says which kinds of call may leave in it, and how many of each left since the entry before: what they carry is
the node's id and its signature over the time, so one entry for each of thousands would say nothing more (invariant I1).
"""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from policies.documents import canonical_json, digest_of, format_moment
from station.audit.log import system_clock
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType

PERIOD: Final = timedelta(hours=1)


class Call(StrEnum):
    """The closed list of calls without a message."""

    ACTIVATE = "activate"
    HEARTBEAT = "heartbeat"
    POLL = "poll"
    CONFIRM = "confirm"
    RUN_STATUS = "run-status"
    HEADS = "heads"
    REGISTRY = "registry"
    MIRROR_REPORT = "mirror-report"


class CallLedger:
    """Announces calls.

    Args:
        ledger: the egress ledger.
        clock: returns the moment it is.
    """

    def __init__(self, ledger: EgressLedger, clock: Callable[[], datetime] = system_clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._lock = threading.Lock()
        self._until: datetime | None = None
        self._counts: Counter[str] = Counter()

    def announce(self, call: Call) -> None:
        """See to it that an entry covers this call.

        Raises:
            StorageError: the ledger cannot be written; the call must not be made.
        """
        now = self._clock().astimezone(UTC)
        with self._lock:
            # Also where the clock went back by more than an hour: an entry covers what its own hour says.
            if self._until is None or not self._until - PERIOD <= now < self._until:
                began = now.replace(minute=0, second=0, microsecond=0)
                self._enter(began)
                self._until = began + PERIOD
                self._counts.clear()
            self._counts[call.value] += 1

    def _enter(self, began: datetime) -> None:
        told = canonical_json({"hour": format_moment(began), "kinds": [call.value for call in Call]})
        self._ledger.append(
            LedgerEntry(
                type=MessageType.HEARTBEAT,
                digest=digest_of(told),
                size=len(told),
                hour=began,
                calls_before={kind: count for kind, count in sorted(self._counts.items())},  # noqa: C416 - a plain dict
            )
        )
