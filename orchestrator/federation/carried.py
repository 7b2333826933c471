"""An order under way: its documents and files, who takes part and why the others do not, and what its page shows."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.federation.exchange import Exchange, Missing, Outcome
from orchestrator.federation.orders import AcceptedOrder, RunFolder, RunProgress
from policies.bundle import BlobFolder
from policies.errors import PhtError
from policies.order import RunOrder
from policies.refusals import RefusalCode
from policies.wire.instructions import Blob, Instruction, Kind

_MAX_DEADLINE_S = 7 * 24 * 3600
_OVER = frozenset(
    {RefusalCode.TRAIN_FAILED_TOO_OFTEN, RefusalCode.RUN_TIME_SPENT, RefusalCode.RUN_STOPPED, "STOPPED"}
)
"""A station that answers one of these has ended its run."""


class RunFailedError(PhtError):
    """The order cannot go on; `message` is the code that its page shows."""


@dataclass(slots=True)
class Stations:
    """Who takes part in an order, as far as is known.

    Attributes:
        ready: accepted the order.
        refused: does not take part, and is not asked again; to its code.
        waiting: may join later; to its code.
        correlation: what stations that answered with a code call their run.
    """

    ready: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    correlation: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Who does not take part, with why."""
        return self.refused | self.waiting

    def note_correlation(self, name: str, outcome: Outcome) -> None:
        """Keep what a station calls its run, where it said so."""
        if isinstance(outcome, Missing) and outcome.correlation_id:
            self.correlation[name] = outcome.correlation_id

    def reconsider(self, name: str, code: str) -> None:
        """A station that lost its state is asked to prepare again; one whose run ended is not asked any more."""
        if code == RefusalCode.INSTRUCTION_UNKNOWN_ORDER:
            self.ready.discard(name)
            self.waiting[name] = code
        elif code in _OVER:
            self.ready.discard(name)
            self.refused[name] = code


class Carried:
    """What every part of a run works on."""

    def __init__(self, folder: RunFolder, blobs: BlobFolder, exchange: Exchange) -> None:
        self.folder = folder
        self.blobs = blobs
        self.exchange = exchange
        self.accepted: AcceptedOrder = folder.read_order()
        self.stations = Stations()
        self.progress: RunProgress = folder.read_progress()

    @property
    def order(self) -> RunOrder:
        """The order as it was signed."""
        return self.accepted.order

    def show(self, **changes: Any) -> None:  # noqa: ANN401 - fields of RunProgress
        """Change what the order's page shows, durably."""
        self.progress = self.progress.model_copy(update=changes)
        self.folder.write_progress(self.progress)

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
