"""Which runs only wait for people: for operators who are to accept, or for who looks at what is to leave. They cost no station anything."""

from datetime import datetime, timedelta
from typing import Final

from orchestrator.federation.deadlines import answer_s, review_s
from orchestrator.federation.run_documents import AcceptedOrder, RunProgress, RunState
from policies.wire.instructions import Kind

_SETTLED: Final = timedelta(seconds=60)
"""Stations that are there accept by themselves, or say that somebody has to, within this."""


def waits_for_people(accepted: AcceptedOrder, progress: RunProgress, now: datetime) -> bool:
    """Whether nothing is computed for a run until somebody does something.

    Too few have accepted, a minute after it began; or people look, and whoever else was asked in the same stage has had its time.
    """
    if progress.state is not RunState.RUNNING:
        return False
    if progress.stage == "prepare":
        too_few = len(progress.accepted) < accepted.order.minimum_stations
        return too_few and progress.since is not None and now - progress.since >= _SETTLED
    if not progress.reviewing or progress.stage not in {"train", "evaluate", "analyse"}:
        return False
    # States of earlier versions do not say it.
    looked_at = progress.looked_at or min(progress.reviewing.values()) - timedelta(seconds=review_s(accepted))
    return now - looked_at >= timedelta(seconds=answer_s(accepted, Kind(progress.stage)))
