"""Every status that leaves: from the closed list, entered in the egress ledger before it is handed to the agent."""

from policies.documents import digest_of
from policies.refusals import RefusalCode
from policies.wire.instructions import Instruction, StationReply, Status, encode
from station.audit.log import AuditLog
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType
from station.runs.repository import Run


class Outbox:
    """Makes status replies.

    Args:
        ledger: where each is entered first.
        audit: whose head rides along, so that others hold it.
    """

    def __init__(self, ledger: EgressLedger, audit: AuditLog) -> None:
        self._ledger = ledger
        self._audit = audit

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
        self._ledger.append(
            LedgerEntry(
                type=MessageType.STATUS,
                digest=digest_of(body),
                size=len(body),
                order_digest=instruction.order_digest,
                round=instruction.round,
            )
        )
        return reply
