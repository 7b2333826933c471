"""Asks stations and waits for them: each one under its own deadline, asked again after any error or silence.

The SuperLink delivers an instruction once, may lose a reply, and answers for a node that it takes for offline. So a
question is (order, round, kind) and every message that carries it another attempt; the first answer of a station
counts. Nothing here relies on Flower's message ids beyond fetching, on acknowledgements or on the online state,
which only says when asking again is of use. `asking` holds one question under way.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from flwr.serverapp import Grid

from orchestrator.federation.answers import Answered, Judge, Missing, Outcome, Patience, StoppedError
from orchestrator.federation.asked import Unanswered
from orchestrator.federation.asking import Asking
from orchestrator.federation.looks import Looks
from orchestrator.federation.reviews import NoReviews, Reviews
from orchestrator.federation.tasks import SuperLinkDownError
from policies.wire.instructions import Instruction

log = logging.getLogger(__name__)

__all__ = ["Answered", "Exchange", "Judge", "Missing", "Outcome", "Patience", "StoppedError"]

_REST = 3.0
_LONGEST_REST_S = 0.5


def pause_s(pull_s: float) -> float:
    """How long the SuperLink is left alone after a question that took it so long.

    Asking after a hundred replies keeps its one writer busy for as long as taking several of them would: it has three times
    that for the stations.

    >>> pause_s(0.01), pause_s(4.0)
    (0.03, 0.5)
    """
    return min(_REST * pull_s, _LONGEST_REST_S)


class Exchange:
    """Questions to the stations of one order over one grid."""

    def __init__(
        self, grid: Grid, nodes: Mapping[str, int], stop: threading.Event, poll_s: float = 0.02
    ) -> None:
        self._grid = grid
        self._nodes = dict(nodes)
        self._stop = stop
        self._poll_s = poll_s
        self._late: dict[str, Unanswered] = {}
        self.on_link: Callable[[bool], None] = lambda _: None
        """Told whether the SuperLink answers."""

    def online(self, stations: Iterable[str]) -> list[str]:
        """Those of the stations that the SuperLink takes for online; none while it is down."""
        try:
            nodes = set(self._grid.get_node_ids())
        except SuperLinkDownError:
            return []
        return [name for name in stations if self._nodes[name] in nodes]

    def ask(
        self,
        question: Instruction,
        arrays: bytes | None,
        stations: Iterable[str],
        patience: Patience,
        judge: Judge,
        reviews: Reviews | None = None,
    ) -> dict[str, Outcome]:
        """Put one question to stations and collect what they say.

        Args:
            question: the instruction; its attempt is set here.
            arrays: inline weights.
            stations: their names, each with a node id.
            patience: how long.
            judge: called once per answer that is not "pending" or worth another try; what it returns is kept.
            reviews: where people look, as it was known before.

        Raises:
            StoppedError: `stop` was set meanwhile.
            LeaseLostError: the task is not ours any more.
        """
        with Looks() as looks:
            asking = Asking(
                self._grid, question, arrays, patience, judge, reviews or NoReviews(), looks, late=self._late
            )
            asking.expect({name: self._nodes[name] for name in stations})
            self._wait_for(asking)
        asking.close(time.monotonic())
        return {
            name: entry.outcome or Missing(entry.last_code, entry.correlation_id)
            for name, entry in asking.stations.items()
        }

    def _wait_for(self, asking: Asking) -> None:
        """Ask, and take what comes, until waiting is of no more use."""
        wait_s = self._poll_s
        while True:
            now = time.monotonic()
            try:
                asking.send_due(now)
                asking.pull()
                self.on_link(True)
            except SuperLinkDownError as error:
                log.warning("superlink_down", extra={"reason": error.message})
                self.on_link(False)
                wait_s = 0.5
            got_one = asking.look()
            # What was there by then is taken: who answered in time is not late because we were slow to look.
            if asking.is_over(now):
                return
            # Short waits at first; a long computation is asked after four times a second, a person less often.
            wait_s = self._poll_s if got_one else min(wait_s * 1.1, asking.longest_wait_s())
            # While answers are looked at the SuperLink is left alone as well.
            rest_s = 0.0 if asking.in_hand else max(wait_s, pause_s(asking.pull_s))
            if rest_s and asking.judging:
                asking.looks.wait(rest_s)
                rest_s = 0.0
            if self._stop.wait(rest_s):
                raise StoppedError
