"""An order under way: its documents and files, who takes part and why the others do not, and what its page shows."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestrator.federation.answers import LOST, Missing
from orchestrator.federation.exchange import Exchange
from orchestrator.federation.orders import SUPERLINK_DOWN, AcceptedOrder, RunFolder, RunProgress
from orchestrator.federation.speeds import Late, SpeedBook
from policies.blobs import BlobFolder
from policies.errors import PhtError
from policies.order import RunOrder
from policies.refusals import RefusalCode
from policies.wire.instructions import Blob, Instruction, Kind

log = logging.getLogger(__name__)

_MAX_DEADLINE_S = 7 * 24 * 3600
_AWAY_S = 2.0
_OVER = frozenset(
    {RefusalCode.TRAIN_FAILED_TOO_OFTEN, RefusalCode.RUN_TIME_SPENT, RefusalCode.RUN_STOPPED, "STOPPED"}
)
"""A station that answers one of these has ended its run."""
_LEFT = _OVER | {
    RefusalCode.POLICY_REVOKED,
    RefusalCode.POLICY_EXPIRED,
    RefusalCode.AGREEMENT_EXPIRED,
    RefusalCode.REQUESTER_REVOKED,
    RefusalCode.STATION_REVOKED,
    RefusalCode.ORDER_EXPIRED,
    RefusalCode.BUDGET_RUNS,
    RefusalCode.BUDGET_RELEASES,
    RefusalCode.BUDGET_PRIVACY,
}
"""What does not become another answer within a run."""


class RunFailedError(PhtError):
    """The order cannot go on; `message` is the code that its page shows."""


@dataclass(slots=True)
class Stations:
    """Who takes part in an order, as far as is known.

    Attributes:
        ready: accepted the order.
        joining: accepted it late; take part from the next round.
        refused: left for good, and is neither asked nor waited for; to its code.
        waiting: lost, late or pending, and may join later; to its code.
        excluded: sent what no station of ours sends, and is out of the run, also after a restart; to its code.
        correlation: what stations that answered with a code call their run.
        since: from when each missing station is missing, for the reason it is now.
    """

    ready: set[str] = field(default_factory=set)
    joining: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    correlation: dict[str, str] = field(default_factory=dict)
    since: dict[str, datetime] = field(default_factory=dict)
    _codes: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Who does not take part, with why."""
        return self.refused | self.waiting | self.excluded

    def accepted(self, name: str) -> None:
        """A station accepted the order."""
        if name not in self.excluded:
            self.ready.add(name)
            self.waiting.pop(name, None)
            self.answered(name)

    def answered(self, name: str) -> None:
        """A station is not missing any more."""
        self.since.pop(name, None)
        self._codes.pop(name, None)

    def note(self, name: str, outcome: Missing) -> None:
        """A station's answer is of no use, or it has none."""
        if outcome.correlation_id:
            self.correlation[name] = outcome.correlation_id
        if self._codes.get(name) != outcome.code:
            self._codes[name] = outcome.code
            self.since[name] = datetime.now(UTC).replace(microsecond=0)

    def reconsider(self, name: str, code: str) -> None:
        """Who is lost or lost its state is asked to prepare again when it is there; who left is not asked any more."""
        if code in {LOST, RefusalCode.INSTRUCTION_UNKNOWN_ORDER}:
            self.ready.discard(name)
            self.waiting[name] = code
        elif code in _LEFT:
            self.leave(name, code)

    def note_known(self, missing: Mapping[str, str]) -> None:
        """Go on from what an earlier process knew: who is missing for the same reason still is since then."""
        self._codes = {name: code for name, code in missing.items() if name in self.since}

    def leave(self, name: str, code: str) -> None:
        """A station is neither asked nor waited for any more."""
        self.ready.discard(name)
        self.waiting.pop(name, None)
        self.refused[name] = code


class Carried:
    """What every part of a run works on."""

    def __init__(self, folder: RunFolder, blobs: BlobFolder, exchange: Exchange) -> None:
        self.folder = folder
        self.blobs = blobs
        self.exchange = exchange
        self.accepted: AcceptedOrder = folder.read_order()
        self.progress: RunProgress = folder.read_progress()
        self.stations = Stations(
            excluded=_excluded(folder) | self.progress.excluded, since=dict(self.progress.missing_since)
        )
        self.stations.note_known(self.progress.missing)
        self.speeds = SpeedBook(folder.path.parent, self.accepted.order.image_config_digest)
        self.lates: list[Late] = []
        self.examples = _examples(folder)
        self.begun = frozenset(self.progress.accepted) | {name for _, name in self.examples}
        """Who accepted the order in an earlier process: what heals in mid-run heals in its answer to being asked again."""
        self._away_at: float | None = None
        exchange.on_link = self._show_link

    @property
    def order(self) -> RunOrder:
        """The order as it was signed."""
        return self.accepted.order

    def show(self, **changes: Any) -> None:  # noqa: ANN401 - fields of RunProgress
        """Change what the order's page shows, durably."""
        self.progress = self.progress.model_copy(update=changes)
        self.folder.write_progress(self.progress)

    def show_stations(self, **changes: Any) -> None:  # noqa: ANN401 - fields of RunProgress
        """Show who takes part and who does not."""
        stations = self.stations
        shown: dict[str, Any] = {
            "accepted": tuple(sorted(stations.ready)),
            "missing": stations.missing,
            "missing_since": {name: stations.since[name] for name in sorted(stations.since)},
            "excluded": dict(stations.excluded),
            "correlation": dict(stations.correlation),
        }
        self.show(**(shown | changes))

    def exclude(self, name: str, code: str) -> None:
        """Put a station out of the run, at once and for good: what it sent is no mistake of a train's."""
        if name in self.stations.excluded:
            return
        log.error("station_excluded", extra={"station": name, "reason": code})
        self.stations.note(name, Missing(code))
        for known in (self.stations.ready, self.stations.joining):
            known.discard(name)
        self.stations.waiting.pop(name, None)
        self.stations.excluded[name] = code
        self.show_stations()

    def _show_link(self, answers: bool) -> None:
        """Say within seconds that nothing can go on while the SuperLink is away."""
        if answers:
            self._away_at = None
            if self.progress.waiting == SUPERLINK_DOWN:
                self.show(waiting="")
            return
        now = time.monotonic()
        self._away_at = now if self._away_at is None else self._away_at
        if now - self._away_at >= _AWAY_S and self.progress.waiting != SUPERLINK_DOWN:
            self.show(waiting=SUPERLINK_DOWN)

    def instruction(self, kind: Kind, round_: int, weights: Blob | None, deadline_s: float) -> Instruction:
        """A message of this order; its attempt is set where it is sent."""
        fields: dict[str, Any] = {"order": self.accepted.envelope} if kind is Kind.PREPARE else {}
        return Instruction(
            kind=kind,
            order_digest=self.accepted.order_digest,
            round=round_,
            config=dict(self.order.hyperparameters),
            weights=weights,
            deadline_s=max(1, min(int(deadline_s), _MAX_DEADLINE_S)),
            **fields,
        )


def _excluded(folder: RunFolder) -> dict[str, str]:
    """Who was out of the run at the end of its last round: also where the state was damaged since."""
    return dict((folder.read_rounds() or [{}])[-1].get("excluded", {}))


def _examples(folder: RunFolder) -> dict[tuple[str, str], int]:
    """The least number of examples that each station said at each stage so far, from the durable record."""
    found: dict[tuple[str, str], int] = {}
    under_way = (folder.read_json("checkpoint.json") or {}).get("entry", {})
    for entry in [*folder.read_rounds(), under_way]:
        for stage, said in entry.get("examples", {}).items():
            for name, examples in said.items():
                found[stage, name] = min(examples, found.get((stage, name), examples))
    return found
