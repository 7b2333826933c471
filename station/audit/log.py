"""The audit log: an event is on disk before `AuditLog.append` returns (invariant I6).

A failed write raises, and so stops the operation that it would have recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from sqlalchemy.orm import Session

from policies.documents import canonical_json, load_json
from policies.errors import DocumentError, StateError
from policies.refusals import Permitted
from station.audit.chain import LINK_KEYS, Chain, ChainBreak, ChainHead, Link, read_body
from station.audit.events import AuditRecord
from station.audit.tables import AuditRow
from station.audit.thinning import Thinner
from station.storage.database import Database

AUDIT_CHAIN: Final = Chain("audit", AuditRow)
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as the log holds it."""

    seq: int
    time: datetime
    record: AuditRecord
    digest: str


def system_clock() -> datetime:
    """Return the moment it is."""
    return datetime.now(UTC)


class AuditLog:
    """Writes and reads events.

    Args:
        database: the station's compute database.
        clock: returns the moment it is.

    Attributes:
        thinned: for what others can cause without end.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] = system_clock) -> None:
        self._database = database
        self._clock = clock
        self.thinned = Thinner(self)

    def append(self, record: AuditRecord, act: Callable[[Session], None] | None = None) -> int:
        """Write one event in a transaction of its own; durable on return.

        Args:
            record: the event.
            act: what the event says, where that is a record too: both are durable, or neither is.

        Returns:
            Its sequence number.

        Raises:
            StorageError: it could not be made durable; the caller must not go on.
        """
        with self._database.write() as session:
            if act is not None:
                act(session)
            return self.append_in(session, record)

    def append_in(self, session: Session, record: AuditRecord) -> int:
        """Write one event inside the caller's write transaction: it becomes durable with what it records."""
        content = record.model_dump(mode="json", exclude_defaults=True)
        content["time"] = self._clock().astimezone(UTC).strftime(TIME_FORMAT)
        return AUDIT_CHAIN.append(session, content).seq

    def head(self) -> ChainHead:
        """Return the end of the chain."""
        with self._database.read() as session:
            return AUDIT_CHAIN.head(session)

    def head_in(self, session: Session) -> ChainHead:
        """Return the end of the chain as the caller's transaction sees it."""
        return AUDIT_CHAIN.head(session)

    def events(self, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """Return up to `limit` events after a sequence number, in order.

        Raises:
            StateError: a stored event is not one; `verify` locates it.
        """
        with self._database.read() as session:
            return [_stored(link) for link in islice(AUDIT_CHAIN.links(session, after), limit)]


def verify(database: Database, known: ChainHead | None = None) -> Permitted[ChainHead] | ChainBreak:
    """Check the stored audit from its first event.

    Args:
        database: the station's compute database.
        known: a head kept elsewhere, which the log must still reach and hold.
    """
    with database.read() as session:
        return AUDIT_CHAIN.verify(session, known)


def _stored(link: Link) -> StoredEvent:
    value = read_body(AUDIT_CHAIN.name, link.body)
    content = {key: item for key, item in value.items() if key not in LINK_KEYS and key != "time"}
    try:
        time = datetime.strptime(str(value.get("time")), TIME_FORMAT).replace(tzinfo=UTC)
        record = load_json(AuditRecord, canonical_json(content), what="audit")
    except (DocumentError, ValueError) as error:
        raise StateError(
            f"audit: entry {link.seq} is not an event", hint="Run `pht-station audit verify`."
        ) from error
    return StoredEvent(link.seq, time, record, link.digest)
