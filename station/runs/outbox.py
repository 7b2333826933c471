"""Every status that leaves: from the closed list, entered in the egress ledger before it is handed to the agent."""

from collections.abc import Mapping
from typing import Final

from policies.documents import digest_of
from policies.order import Stage
from policies.refusals import RefusalCode
from policies.wire.instructions import Instruction, Kind, StationReply, Status, encode
from station.audit.log import AuditLog
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType
from station.egress.records.repeats import Repeats
from station.runs.repository import Run

_STAGES: Final[Mapping[Kind, Stage]] = {
    Kind.TRAIN: "train",
    Kind.EVALUATE: "evaluate",
    Kind.ANALYSE: "analyse",
}
_ASKED_AGAIN: Final = frozenset({Status.REFUSED, Status.PENDING})


class Outbox:
    """Makes status replies.

    Args:
        ledger: where each is entered first.
        audit: whose head rides along, so that others hold it.
    """

    def __init__(self, ledger: EgressLedger, audit: AuditLog) -> None:
        self._ledger = ledger
        self._audit = audit
        self.repeats = Repeats(ledger)

    def status(
        self, instruction: Instruction, status: Status, code: RefusalCode | str | None, run: Run | None = None
    ) -> StationReply:
        """Return a reply that carries a status, a code of the catalogue or the manifest, and nothing else.

        Raises:
            StorageError: the ledger cannot be written; nothing may leave.
        """
        reply = StationReply(
            order_digest=instruction.order_digest,
            kind=instruction.kind,
            round=instruction.round,
            attempt=instruction.attempt,
            status=status,
            code=None if code is None else str(code),
            correlation_id=run.correlation_id if run else "",
            egress_ledger_head=self._ledger.head().digest,
            audit_head=self._audit.head().digest,
        )
        body = encode(reply)
        entry = LedgerEntry(
            type=MessageType.STATUS,
            digest=digest_of(body),
            size=len(body),
            order_digest=instruction.order_digest,
            round=instruction.round,
            stage=_STAGES.get(instruction.kind),
        )
        if status in _ASKED_AGAIN:
            # Whoever asks can have these without end; orders that are not on record can be invented.
            about = "" if run is None else run.order_digest
            self.repeats.enter(status.value, entry, code=reply.code or "", about=about)
        else:
            self._ledger.append(entry)
        return reply
