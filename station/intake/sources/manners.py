"""The manners a PACS administrator expects: hours, pace, and patience. Pure: the clock and the dice come from outside."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta, tzinfo

_MINUTE_S = 60.0


def is_open(hours: Sequence[tuple[str, str]], zone: tzinfo, now: datetime) -> bool:
    """Tell whether `now` falls in the hours; a range may pass midnight, and no range at all is always.

    >>> from datetime import UTC
    >>> is_open([("19:00", "06:00")], UTC, datetime(2026, 11, 22, 5, 59, tzinfo=UTC))
    True
    >>> is_open([("19:00", "06:00")], UTC, datetime(2026, 11, 22, 6, 0, tzinfo=UTC))
    False
    """
    if not hours:
        return True
    clock = now.astimezone(zone).time()
    for first, last in hours:
        start, end = time.fromisoformat(first), time.fromisoformat(last)
        if (start <= clock < end) if start < end else (clock >= start or clock < end):
            return True
    return False


def opens_at(hours: Sequence[tuple[str, str]], zone: tzinfo, now: datetime) -> datetime:
    """Return when it may be asked: `now`, or the next start of a range.

    A local time that a clock change skips is taken as the moment after it; `is_open` is asked again then anyway.

    >>> from datetime import UTC
    >>> opens_at([("19:00", "06:00")], UTC, datetime(2026, 11, 22, 12, 0, tzinfo=UTC)).hour
    19
    """
    if is_open(hours, zone, now):
        return now
    local = now.astimezone(zone)
    starts = [
        datetime.combine(local.date() + timedelta(days=days), time.fromisoformat(first), tzinfo=zone)
        for days in (0, 1, 2)
        for first, _ in hours
    ]
    return min(start for start in starts if start > now)


def backoff_s(attempt: int, first_s: float, longest_s: float, dice: float) -> float:
    """Return how long to wait before the next attempt: doubled each time, up to the longest, and half of it by chance.

    Args:
        attempt: how many have failed; 1 or more.
        first_s: the pause after the first.
        longest_s: the most.
        dice: from 0 to 1, at random, so that many stations do not come back at once.

    >>> [backoff_s(attempt, 10, 60, 1.0) for attempt in (1, 2, 3, 4, 5)]
    [10.0, 20.0, 40.0, 60.0, 60.0]
    >>> backoff_s(1, 10, 60, 0.0)
    5.0
    """
    pause = min(longest_s, first_s * 2.0 ** min(attempt - 1, 32))
    return pause * (0.5 + 0.5 * dice)


class Pace:
    """So many of something in a minute, on average: what was taken is paid for by waiting before the next."""

    def __init__(self, per_minute: int) -> None:
        self._each_s = _MINUTE_S / per_minute
        self._free_at = 0.0

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before the next may be taken."""
        return max(0.0, self._free_at - now_s)

    def took(self, count: int, now_s: float) -> None:
        """Say how many were taken."""
        self._free_at = max(self._free_at, now_s) + count * self._each_s
