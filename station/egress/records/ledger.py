"""The egress ledger: one entry for every message that leaves the station (invariant I1), as a hash chain.

An entry says what type of message it was, how large, its digest, for which order and round, and under which rules; it
holds no content. It is durable before the message is handed to the network (invariant I6).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

from pydantic import Field
from sqlalchemy.orm import Session

from policies.documents import Digest, Moment, StrictModel, canonical_json, digest_of, load_json
from policies.errors import DocumentError, StateError
from policies.order import Stage
from policies.refusals import Permitted
from policies.wire.instructions import Status
from station.audit.chain import LINK_KEYS, Chain, ChainBreak, ChainHead, Link, read_body
from station.audit.log import TIME_FORMAT, system_clock
from station.egress.records.tables import LedgerRow
from station.storage.database import Database

LEDGER_CHAIN: Final = Chain("egress", LedgerRow)

Size = Annotated[int, Field(ge=0)]
CallKind = Annotated[str, Field(pattern=r"^[a-z-]{1,32}$")]


class MessageType(StrEnum):
    """The closed list of what leaves a station."""

    RELEASE = "release"
    STATUS = "status"
    COUNTS = "counts"
    AUDIT_HEAD = "audit-head"
    HEARTBEAT = "heartbeat"
    DURATION = "duration"


RULES: Final[Mapping[MessageType, str]] = {
    kind: digest_of(canonical_json({"version": 1, "type": kind.value, "bound": bound}))
    for kind, bound in (
        (MessageType.RELEASE, "the contract of its run: manifest and policy"),
        (MessageType.STATUS, [status.value for status in Status]),
        (MessageType.COUNTS, "the fixed table of rounded counts"),
        (MessageType.AUDIT_HEAD, "the signed statement of a station's heads and counters"),
        (MessageType.HEARTBEAT, "calls without a message, by kind and number"),
        (MessageType.DURATION, "a multiple of the policy's quantum"),
    )
}
"""By what a message of each type is bound, where no contract of a run is at hand; by its digest."""


class LedgerEntry(StrictModel):
    """One message as it leaves.

    Attributes:
        type: of the closed list.
        digest: of the message's own bytes.
        size: of those bytes.
        order_digest: for whose run; None for messages of no run.
        round: of the run.
        stage: what was asked.
        rules_digest: the rule set that a release passed; of any other message, the closed list that its type is bound to (`RULES`).
        arrays_digest: of the file beside it.
        arrays_size: of that file.
        capacity_bits: of a release: an upper bound on what its train could carry out with it.
        repeated: the same bytes left before.
        hour: of calls without a message (`station.egress.records.calls`), which hour the entry covers; its digest is of what it says.
        calls_before: how many of each kind were made since the entry before; None for messages.
    """

    type: MessageType
    digest: Digest
    size: Size
    order_digest: Digest | None = None
    round: Size | None = None
    stage: Stage | None = None
    rules_digest: Digest | None = None
    arrays_digest: Digest | None = None
    arrays_size: Size | None = None
    capacity_bits: Size | None = None
    repeated: bool = False
    hour: Moment | None = None
    calls_before: dict[CallKind, Size] | None = Field(default=None, max_length=16)


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry as the ledger holds it."""

    seq: int
    time: datetime
    entry: LedgerEntry
    digest: str


class EgressLedger:
    """Writes and reads the ledger.

    Args:
        database: the station's compute database.
        clock: returns the moment it is.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = system_clock) -> None:
        self._database = database
        self._clock = clock

    def append(self, entry: LedgerEntry) -> ChainHead:
        """Write one entry in a transaction of its own; durable on return.

        Raises:
            StorageError: it could not be made durable; the message must not leave.
        """
        with self._database.write() as session:
            return self.append_in(session, entry)

    def append_in(self, session: Session, entry: LedgerEntry) -> ChainHead:
        """Write one entry inside the caller's write transaction."""
        if entry.rules_digest is None:
            entry = entry.model_copy(update={"rules_digest": RULES[entry.type]})
        content = entry.model_dump(mode="json", exclude_defaults=True)
        content["time"] = self._clock().astimezone(UTC).strftime(TIME_FORMAT)
        return LEDGER_CHAIN.append(session, content)

    def head(self) -> ChainHead:
        """Return the end of the chain."""
        with self._database.read() as session:
            return LEDGER_CHAIN.head(session)

    def head_in(self, session: Session) -> ChainHead:
        """Return the end of the chain as the caller's transaction sees it."""
        return LEDGER_CHAIN.head(session)

    def entries(self, after: int = 0, limit: int = 1000) -> list[StoredEntry]:
        """Return up to `limit` entries after a sequence number, in order.

        Raises:
            StateError: a stored entry is not one; `verify_ledger` locates it.
        """
        with self._database.read() as session:
            return [_stored(link) for link in islice(LEDGER_CHAIN.links(session, after), limit)]

    def entry(self, seq: int) -> LedgerEntry | None:
        """Return one entry, or None where there is none of that number.

        Raises:
            StateError: what is stored is not an entry.
        """
        found = self.entries(seq - 1, 1)
        return found[0].entry if found and found[0].seq == seq else None


def verify_ledger(database: Database, known: ChainHead | None = None) -> Permitted[ChainHead] | ChainBreak:
    """Check the stored ledger from its first entry, and that it still holds a head kept elsewhere."""
    with database.read() as session:
        return LEDGER_CHAIN.verify(session, known)


def _stored(link: Link) -> StoredEntry:
    value = read_body(LEDGER_CHAIN.name, link.body)
    content = {key: item for key, item in value.items() if key not in LINK_KEYS and key != "time"}
    try:
        time = datetime.strptime(str(value.get("time")), TIME_FORMAT).replace(tzinfo=UTC)
        entry = load_json(LedgerEntry, canonical_json(content), what="egress ledger")
    except (DocumentError, ValueError) as error:
        raise StateError(f"egress ledger: entry {link.seq} is not an entry") from error
    return StoredEntry(link.seq, time, entry, link.digest)
