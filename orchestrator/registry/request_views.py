"""What is seen of requests, and by whom: their owner, the board, operators and auditors; for everybody else there is none."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from orchestrator.registry.access import Principal, Role
from orchestrator.storage import RequestRow
from policies.errors import NotFoundError
from policies.train_request import RequestState, TrainRequest, read_request

SEE_ALL: Final = frozenset({Role.BOARD, Role.OPERATOR, Role.AUDITOR})


@dataclass(frozen=True, slots=True)
class RequestView:
    """One request."""

    id: str
    owner: str
    state: RequestState
    document: TrainRequest
    policy_id: str | None
    policy_version: int | None
    submitted: datetime
    changed: datetime
    contested: bool = False
    """Not signed (it is of an earlier version), and somebody else claims the same train and key. Said to those who see all
    requests, to no researcher."""
    signed: bool = False
    """By the key that it names, for its owner."""


@dataclass(frozen=True, slots=True)
class RequestStep:
    """One line of a request's history."""

    number: int
    moment: datetime
    who: str
    before: str
    after: str
    code: str
    text: str


def visible(session: Session, principal: Principal, request: str) -> RequestRow:
    """Return a request's row.

    Raises:
        NotFoundError: there is none that this party may see.
    """
    row = session.get(RequestRow, request)
    owns = row is not None and principal.role is Role.RESEARCHER and row.owner == principal.id
    if row is None or not (owns or principal.role in SEE_ALL):
        raise NotFoundError("there is no such request")
    return row


def view_of(row: RequestRow, *, contested: bool = False) -> RequestView:
    """Return a row as it is shown."""
    return RequestView(
        id=row.id,
        owner=row.owner,
        state=RequestState(row.state),
        document=read_request(row.document),
        policy_id=row.policy_id,
        policy_version=row.policy_version,
        submitted=row.submitted,
        changed=row.changed,
        contested=contested,
        signed=row.signed,
    )
