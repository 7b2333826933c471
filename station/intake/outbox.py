"""The outbox: what the database says was handed over reaches the log, once and in order.

An entry is written in the transaction that decides on it, with its audit record (I6), and appended to the log after.
A crash between the append and its mark is healed by the log: it knows its last operation (I8).
"""

import secrets
from collections.abc import Callable
from datetime import datetime

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.documents import canonical_json, parse_json
from policies.errors import StateError
from station.handover import MAX_ENTRY_BYTES, Content, HandoverLog
from station.intake.audit import IntakeEvent, record
from station.intake.schema import OutboxRow
from station.storage.database import Database

_CONTENT: TypeAdapter[Content] = TypeAdapter(Content)


def enqueue(session: Session, content: Content, count: int, *, now: datetime) -> int:
    """Put an entry in the outbox within the caller's transaction; returns its id.

    Args:
        session: the write transaction that decides on the entry.
        content: what is handed over.
        count: how many records it holds, for the audit.
        now: the moment, for the audit.
    """
    row = OutboxRow(
        operation=f"{content.kind}:{secrets.token_hex(16)}",
        kind=content.kind,
        content=canonical_json(content),
    )
    session.add(row)
    session.flush()
    record(
        session,
        IntakeEvent.HANDED_OVER,
        {"kind": content.kind, "operation": row.operation, "count": count},
        now=now,
    )
    return row.id


def flush(database: Database, log: HandoverLog, clock: Callable[[], datetime]) -> int:
    """Append what is waiting to the log, in order; returns how many entries.

    Raises:
        HandoverError: the log does not verify; nothing is appended to it.
        StorageError: an entry cannot be written; it stays in the outbox.
    """
    with database.read() as session:
        waiting = list(
            session.scalars(select(OutboxRow).where(OutboxRow.sequence.is_(None)).order_by(OutboxRow.id))
        )
    for row in waiting:
        if row.content is None:
            raise StateError("intake outbox: an entry has lost its content")
        content = _CONTENT.validate_python(
            parse_json(row.content, what="outbox entry", max_bytes=MAX_ENTRY_BYTES)
        )
        entry = log.append(content, row.operation, now=clock())
        with database.write() as session:
            stored = session.get_one(OutboxRow, row.id)
            stored.sequence = entry.sequence
            # It stands in the log now.
            stored.content = None
    return len(waiting)


def last_sequence(session: Session) -> int:
    """Return the sequence of the newest entry that reached the log; 0 for none."""
    return session.scalar(select(func.max(OutboxRow.sequence))) or 0
