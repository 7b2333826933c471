"""When a hospital lets trains start, and when its operator is asked: said in `station.toml`, and told in its profile."""

from collections.abc import Iterable, Sequence
from datetime import datetime, time, tzinfo
from typing import Literal

from policies.manifest import TrainKind

OperatorApproval = Literal["always", "training", "never"]


def in_quiet_hours(ranges: Iterable[Sequence[str]], zone: tzinfo, now: datetime) -> bool:
    """Tell whether `now` (with a time zone) falls in one of the ranges; a range may pass midnight.

    Args:
        ranges: pairs of clock times such as ``("22:00", "06:00")``; the second is the first moment that is not quiet.
        zone: the time zone they are meant in.
        now: the moment.
    """
    clock = now.astimezone(zone).time()
    for first, last in ranges:
        start, end = time.fromisoformat(first), time.fromisoformat(last)
        if (start <= clock < end) if start < end else (clock >= start or clock < end):
            return True
    return False


def asks_operator(approval: OperatorApproval, kind: TrainKind) -> bool:
    """Tell whether a train of this kind waits for the operator's word."""
    return approval == "always" or (approval == "training" and kind is TrainKind.TRAINING)
