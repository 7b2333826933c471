"""The orchestrator's own audit, for its auditor and its operator."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.registry.access import Role
from orchestrator.registry.audit import PAGE

router = APIRouter(prefix="/audit", tags=["audit"])


class AuditEntry(BaseModel):
    """One entry."""

    seq: int
    time: str
    action: str
    who: str
    about: str
    outcome: str
    code: str
    more: int
    digest: str


class AuditPage(BaseModel):
    """Entries in their order, and the end of the chain as of the same moment."""

    entries: list[AuditEntry]
    next: int
    """Give it back as `after`."""
    head_seq: int
    head_digest: str
    """Note both down: a chain that was cut off or written anew no longer holds this entry."""


@router.get("", summary="The orchestrator's audit, a page at a time")
def get_audit(
    asking: CallerOf,
    parts: ServicesOf,
    after: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = 100,
) -> AuditPage:
    """Show entries after a number, the oldest first."""
    require(asking, Role.AUDITOR, Role.OPERATOR)
    events, head = parts.audit.page(after, limit)
    return AuditPage(
        entries=[
            AuditEntry(
                seq=one.seq,
                time=one.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                digest=one.digest,
                **one.event.model_dump(mode="json"),
            )
            for one in events
        ],
        next=events[-1].seq if events else after,
        head_seq=head.seq,
        head_digest=head.digest,
    )
