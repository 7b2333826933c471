"""What was done with the data of the cohorts that somebody asks about: the lines of the audit that concern them.

Compute does not know who asks, nor which patient: it is asked by order and cohort, which intake's answer to a usage list names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from policies.documents import Digest, Moment, Sequence, StrictModel
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog, StoredEvent

MAX_USES = 100_000
_PAGE = 1000
_OF_THE_COHORT = frozenset(
    {
        AuditEvent.COHORT_FROZEN,
        AuditEvent.COHORT_WIPED,
        AuditEvent.COUNTING_STARTED,
        AuditEvent.DATA_USED,
    }
)
_OF_THE_ORDER = frozenset(
    {
        AuditEvent.OPERATOR_APPROVED,
        AuditEvent.CONTAINER_STARTED,
        AuditEvent.CONTAINER_ENDED,
        AuditEvent.PRIVACY_CHARGED,
        AuditEvent.RELEASE_RECORDED,
        AuditEvent.RELEASE_REFUSED,
        AuditEvent.RELEASE_WITHHELD,
        AuditEvent.RELEASE_PARKED,
        AuditEvent.REVIEW_SHOWN,
        AuditEvent.REVIEW_WORD,
        AuditEvent.REVIEW_LAPSED,
        AuditEvent.CONSENT_WITHDRAWN,
        AuditEvent.DATA_WITHDRAWN,
    }
)


class CohortUse(StrictModel):
    """One cohort under one order."""

    order: Digest
    cohort: Digest


class AccessesRequest(StrictModel):
    """What is asked, and by whom."""

    actor: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,100}$")
    uses: Sequence[CohortUse] = Field(max_length=MAX_USES)


class AccessView(StrictModel):
    """One line of the audit, as NEN 7513 wants it read: when, what, who, for whom, why, about what, how it ended."""

    seq: int
    time: Moment
    event: str
    actor: str
    on_behalf_of: str | None
    purpose: str | None
    order: str
    outcome: str
    numbers: dict[str, int]
    detail: str


@dataclass(frozen=True, slots=True)
class AccessDesk:
    """Finds the lines; that they were shown is audited first."""

    audit: AuditLog

    def accesses(self, request: AccessesRequest) -> list[AccessView]:
        """Return every line about these uses, in order of time."""
        self.audit.append(
            AuditRecord(
                event=AuditEvent.ACCESSES_SHOWN,
                actor=f"operator:{request.actor}",
                numbers={"uses": len(request.uses)},
            )
        )
        wanted: dict[str, set[str]] = {}
        for use in request.uses:
            wanted.setdefault(use.order, set()).add(use.cohort)
        return [
            _view(stored, order)
            for stored in self._events()
            if (order := _order_of(stored.record)) in wanted and _concerns(stored.record, wanted[order])
        ]

    def _events(self) -> Iterator[StoredEvent]:
        after = 0
        while page := self.audit.events(after, _PAGE):
            yield from page
            after = page[-1].seq


def _order_of(record: AuditRecord) -> str:
    """Return the order that an event is about: its object, or where that is a cohort or an image, its detail's first words."""
    words = record.detail.split()
    if len(words) > 1 and words[0] == "order":
        return words[1]
    return record.object or ""


def _concerns(record: AuditRecord, cohorts: set[str]) -> bool:
    if record.event in _OF_THE_COHORT:
        return record.object in cohorts or bool(cohorts.intersection(record.detail.split()))
    return record.event in _OF_THE_ORDER


def _view(stored: StoredEvent, order: str) -> AccessView:
    record = stored.record
    return AccessView(
        seq=stored.seq,
        time=stored.time,
        event=record.event.value,
        actor=record.actor,
        on_behalf_of=record.on_behalf_of,
        purpose=record.purpose,
        order=order,
        outcome=record.outcome,
        numbers=record.numbers,
        detail=record.detail,
    )
