"""The orchestrator's own audit: who did what, to what, with which outcome; a hash chain in its database.

Whoever changes state writes the entry in the same transaction (`Audit.append_in`), or, where the effect is not in the
database, before it (`Audit.append`): what cannot be recorded does not happen. What strangers can cause without end
(refused proofs) is thinned: `THINNED_PER_HOUR` of a kind are written, the rest counted and written as one entry with its
number when the hour is over. What a known party does that has an effect is never thinned, however much else there is.
Invariants: no token, no document and no text of a train is in an entry; an entry that stands for several parties or
objects names none of them.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, JsonValue, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.storage import AuditEventRow, Database
from policies.chains import (
    EMPTY,
    LINK_KEYS,
    ChainBreak,
    ChainHead,
    Link,
    next_link,
    read_body,
    verify_links,
)
from policies.documents import StrictModel, canonical_json
from policies.errors import StateError
from policies.refusals import Permitted

CHAIN: Final = "orchestrator-audit"
PAGE: Final = 500
THINNED_PER_HOUR: Final = 5
MAX_KINDS: Final = 1000
"""Of one action: what is tried without end hides nothing but more of the same."""
MAX_ONCE: Final = 10_000
SEVERAL: Final = "several"
_PERIOD_S: Final = 3600.0
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class Action(StrEnum):
    """What was done, or tried."""

    PROOF_REFUSED = "proof-refused"
    ROLE_REFUSED = "role-refused"
    TOKEN_MADE = "token-made"  # noqa: S105 - no secret
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - no secret
    BLOB_STORED = "blob-stored"
    BLOB_REMOVED = "blob-removed"
    BUNDLE_ACCEPTED = "bundle-accepted"
    MIRROR_PUBLISHED = "mirror-published"
    REGISTER_FOLLOWED = "register-followed"
    NODE_REGISTERED = "node-registered"
    ORDER_ACCEPTED = "order-accepted"
    ORDER_REFUSED = "order-refused"
    RUN_STOPPED = "run-stopped"
    RUN_RESUMED = "run-resumed"
    RESULT_FETCHED = "result-fetched"
    STATEMENT_TAKEN = "statement-taken"
    STATEMENT_REFUSED = "statement-refused"
    HEADS_TAKEN = "heads-taken"
    REQUEST_SUBMITTED = "request-submitted"
    REQUEST_REFUSED = "request-refused"
    REQUEST_CHANGED = "request-changed"
    RESTORED = "restored"


Outcome = Annotated[str, Field(pattern=r"^(done|begun|refused)$")]


class AuditEvent(StrictModel):
    """One entry's content."""

    action: Action
    who: Annotated[str, Field(max_length=200)] = Field(
        description="A principal, or the address of a stranger; `several` where there were too many to tell apart."
    )
    about: Annotated[str, Field(max_length=300)] = Field(
        default="", description="What it was done to: a digest, a name; `several` where that differs."
    )
    outcome: Outcome = Field(
        default="done",
        description="`begun` stands before an effect that is not in the database, and says no more than that.",
    )
    code: Annotated[str, Field(max_length=100)] = Field(default="", description="Why it was refused.")
    more: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many of this kind within the hour this entry stands for besides itself."
    )


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One entry as it is kept."""

    seq: int
    time: datetime
    event: AuditEvent
    digest: str


@dataclass(slots=True)
class _Window:
    began: float
    last: AuditEvent
    written: int = 0
    left_out: int = 0


class Audit:
    """Writes and reads the chain.

    Args:
        database: the orchestrator's.
        clock: returns the moment it is.
        steady: seconds that never go back, for thinning.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._clock, self._steady = database, clock, steady
        self._windows: dict[Action, OrderedDict[tuple[str, ...], _Window]] = {}
        self._once: OrderedDict[AuditEvent, float] = OrderedDict()
        self._lock = threading.Lock()

    def append_in(self, session: Session, event: AuditEvent) -> ChainHead:
        """Write an entry inside the caller's transaction: durable with what it records, or neither is."""
        content: dict[str, JsonValue] = event.model_dump(mode="json", exclude_defaults=True)
        content["time"] = self._clock().astimezone(UTC).strftime(_TIME_FORMAT)
        link = next_link(CHAIN, content, _head(session))
        session.add(AuditEventRow(seq=link.seq, body=link.body, digest=link.digest))
        session.flush()
        return ChainHead(link.seq, link.digest)

    def append(self, event: AuditEvent) -> ChainHead:
        """Write an entry in a transaction of its own; durable on return.

        Raises:
            StorageError: it could not be made durable; the caller must not go on.
        """
        with self._database.transaction() as session:
            return self.append_in(session, event)

    def append_thinned(self, event: AuditEvent, *, by_object: bool = False) -> None:
        """Write an entry of what others can cause without end, or count it.

        Args:
            event: the entry.
            by_object: each object is a kind of its own; where there are few, and the sender does not make them up.
        """
        self.flush()
        with self._lock:
            kinds = self._windows.setdefault(event.action, OrderedDict())
            key = (event.who, event.outcome, event.code, event.about if by_object else "")
            if key not in kinds and len(kinds) >= MAX_KINDS:
                # From so many addresses at once: they are one kind, and none of them answers for the others.
                event = event.model_copy(update={"who": SEVERAL, "about": SEVERAL})
                key = (SEVERAL, event.outcome, event.code, "")
            window = kinds.setdefault(key, _Window(self._steady(), event))
            if window.written >= THINNED_PER_HOUR:
                window.left_out += 1
                if event.about != window.last.about:
                    window.last = window.last.model_copy(update={"about": SEVERAL})
                return
            window.written += 1
        self.append(event)

    def append_once(self, event: AuditEvent) -> None:
        """Write an entry of what a known party does before it has an effect, but not again within the hour.

        Raises:
            StorageError: it could not be made durable; the caller must not go on.
        """
        now = self._steady()
        with self._lock:
            written = self._once.get(event)
        if written is not None and now - written < _PERIOD_S:
            return
        # Noted when it is durable: two requests at once may write two entries, and neither goes on without one.
        self.append(event)
        with self._lock:
            self._once[event] = now
            self._once.move_to_end(event)
            while len(self._once) > MAX_ONCE:
                self._once.popitem(last=False)

    def flush(self, *, all_of_it: bool = False) -> None:
        """Write what was counted in hours that are over; everything at the end of a life."""
        now = self._steady()
        with self._lock:
            windows = []
            for kinds in self._windows.values():
                over = [key for key, one in kinds.items() if all_of_it or now - one.began >= _PERIOD_S]
                windows += [kinds.pop(key) for key in over]
        for window in windows:
            if window.left_out:
                self.append(window.last.model_copy(update={"more": window.left_out}))

    def head(self) -> ChainHead:
        """Return the end of the chain."""
        with self._database.reading() as session:
            return _head(session)

    def page(self, after: int = 0, limit: int = PAGE) -> tuple[list[StoredEvent], ChainHead]:
        """Return up to `limit` entries after a number, and the end of the chain as of the same moment.

        Raises:
            StateError: a stored entry is not one; `verify` says which.
        """
        with self._database.reading() as session:
            links = [_link(row) for row in _rows(session, after, min(limit, PAGE))]
            return [_stored(link) for link in links], _head(session)

    def verify(self, known: ChainHead | None = None) -> Permitted[ChainHead] | ChainBreak:
        """Check the chain from its first entry.

        Args:
            known: an end that was noted down earlier, which the chain must still reach and hold.
        """
        with self._database.reading() as session:
            return verify_links(CHAIN, _links(session), known)

    def lines(self) -> Iterator[bytes]:
        """Yield the entries' very bytes in one consistent view, for a file that is checked elsewhere."""
        with self._database.reading() as session:
            for link in _links(session):
                yield link.body


def _head(session: Session) -> ChainHead:
    last = session.execute(
        select(AuditEventRow.seq, AuditEventRow.digest).order_by(AuditEventRow.seq.desc()).limit(1)
    ).first()
    return EMPTY if last is None else ChainHead(last[0], last[1])


def _rows(session: Session, after: int, limit: int) -> list[tuple[int, bytes, str]]:
    query = (
        select(AuditEventRow.seq, AuditEventRow.body, AuditEventRow.digest)
        .where(AuditEventRow.seq > after)
        .order_by(AuditEventRow.seq)
        .limit(limit)
    )
    return [(row[0], row[1], row[2]) for row in session.execute(query)]


def _links(session: Session) -> Iterator[Link]:
    after = -1
    while page := _rows(session, after, PAGE):
        yield from (_link(row) for row in page)
        after = page[-1][0]


def _link(row: tuple[int, bytes, str]) -> Link:
    # A hand that changed rows may have left text or NULL where bytes were.
    body = row[1] if isinstance(row[1], bytes) else str(row[1]).encode()
    return Link(row[0], body, str(row[2]))


def _stored(link: Link) -> StoredEvent:
    value = read_body(CHAIN, link.body)
    content = {key: item for key, item in value.items() if key not in LINK_KEYS and key != "time"}
    try:
        moment = datetime.strptime(str(value.get("time")), _TIME_FORMAT).replace(tzinfo=UTC)
        event = AuditEvent.model_validate_json(canonical_json(content))
    except (ValidationError, ValueError) as error:
        raise StateError(
            f"audit: entry {link.seq} is not one", hint="Run `pht-orchestrator audit verify`."
        ) from error
    return StoredEvent(link.seq, moment, event, link.digest)
