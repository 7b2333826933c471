"""Requests of researchers: submitted by them, reviewed by the board, followed to their release."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.portal.body import bounded_body
from orchestrator.portal.document import body_of
from orchestrator.registry.access import Role
from orchestrator.registry.request_views import RequestView
from orchestrator.registry.requests import MAX_PAGE
from policies.documents import format_moment, load_json
from policies.train_request import MAX_SIGNED_BYTES, Declined, Remark, RequestState, TrainRequest

router = APIRouter(prefix="/requests", tags=["requests"])
_READERS = (Role.RESEARCHER, Role.BOARD, Role.OPERATOR, Role.AUDITOR)
_MAX_REMARK_BYTES = 8 * 1024
_REMARK = body_of('`{}` or `{"text": ...}`, at most 500 characters')

RequestId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


class RequestShown(BaseModel):
    """One request, and where it stands."""

    id: str
    owner: str
    state: RequestState
    policy_id: str | None
    """The policy in force that approved it."""
    policy_version: int | None
    submitted: str
    changed: str
    contested: bool
    """Not signed, and another researcher claims the same train and key: a policy does not approve it until one is declined; only
    the board, operators and auditors are told."""
    signed: bool
    """By the key that it names, for its owner; requests of earlier versions are not. `GET /requests/{id}/envelope` is the proof."""
    request: TrainRequest


class RequestStepShown(BaseModel):
    """One change of state."""

    number: int
    moment: str
    who: str
    before: str
    after: str
    code: str
    text: str


@router.post(
    "",
    summary="Ask that a train may run (request.yaml, signed by the key that it names)",
    status_code=201,
    openapi_extra=body_of("A DSSE envelope over `policies.train_request.SignedRequest`"),
)
async def post_request(request: Request, asking: CallerOf, parts: ServicesOf) -> RequestShown:
    """Take a request in; the same one again, while it is open, is that request.

    What is signed for another account than the sender's is refused (409, `REQUEST_SENDER`), whoever comes first.
    """
    principal = require(asking, Role.RESEARCHER)
    data = await bounded_body(request, MAX_SIGNED_BYTES)
    await run_in_threadpool(parts.quotas.check, principal, 2 * len(data))
    return _shown(await run_in_threadpool(parts.requests.submit, principal, data))


@router.get("", summary="Your requests (board, operator and auditor: all)")
def list_requests(
    asking: CallerOf,
    parts: ServicesOf,
    state: RequestState | None = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> list[RequestShown]:
    """List requests, the newest first."""
    principal = require(asking, *_READERS)
    return [_shown(view) for view in parts.requests.all(principal, state, offset, limit)]


@router.get("/{id}", summary="One request")
def get_request(id: RequestId, asking: CallerOf, parts: ServicesOf) -> RequestShown:  # noqa: A002 - the path's word
    """Show a request."""
    return _shown(parts.requests.get(require(asking, *_READERS), id))


@router.get("/{id}/history", summary="How a request came to where it stands")
def get_history(id: RequestId, asking: CallerOf, parts: ServicesOf) -> list[RequestStepShown]:  # noqa: A002
    """Show every change of state, the oldest first."""
    return [
        RequestStepShown(
            number=step.number,
            moment=format_moment(step.moment),
            who=step.who,
            before=step.before,
            after=step.after,
            code=step.code,
            text=step.text,
        )
        for step in parts.requests.history(require(asking, *_READERS), id)
    ]


@router.get("/{id}/envelope", summary="A request as its key signed it")
def get_envelope(id: RequestId, asking: CallerOf, parts: ServicesOf) -> Response:  # noqa: A002
    """Show the DSSE envelope: whoever reads it can verify it by the key in the request."""
    envelope = parts.requests.envelope(require(asking, *_READERS), id)
    return Response(envelope, media_type="application/json")


@router.post("/{id}/review", summary="Take a request into review (board)", openapi_extra=_REMARK)
async def review_request(
    id: RequestId,  # noqa: A002
    request: Request,
    asking: CallerOf,
    parts: ServicesOf,
) -> RequestShown:
    """Say that the board looks at it."""
    principal = require(asking, Role.BOARD)
    remark = await _remark(request)
    return _shown(await run_in_threadpool(parts.requests.take_up, principal, id, remark))


@router.post(
    "/{id}/decline",
    summary="Decline a request, with a reason (board)",
    openapi_extra=body_of('`{"reason": ..., "text": ...}`; `policies.train_request.DeclineReason`'),
)
async def decline_request(
    id: RequestId,  # noqa: A002
    request: Request,
    asking: CallerOf,
    parts: ServicesOf,
) -> RequestShown:
    """Say no, and why."""
    principal = require(asking, Role.BOARD)
    why = load_json(Declined, await bounded_body(request, _MAX_REMARK_BYTES), what="request")
    return _shown(await run_in_threadpool(parts.requests.decline, principal, id, why))


@router.post("/{id}/withdraw", summary="Withdraw your request", openapi_extra=_REMARK)
async def withdraw_request(
    id: RequestId,  # noqa: A002
    request: Request,
    asking: CallerOf,
    parts: ServicesOf,
) -> RequestShown:
    """Take it back."""
    principal = require(asking, Role.RESEARCHER)
    remark = await _remark(request)
    return _shown(await run_in_threadpool(parts.requests.withdraw, principal, id, remark))


async def _remark(request: Request) -> Remark:
    data = await bounded_body(request, _MAX_REMARK_BYTES)
    return load_json(Remark, data, what="remark") if data else Remark()


def _shown(view: RequestView) -> RequestShown:
    return RequestShown(
        id=view.id,
        owner=view.owner.partition(":")[2],
        state=view.state,
        policy_id=view.policy_id,
        policy_version=view.policy_version,
        submitted=format_moment(view.submitted),
        changed=format_moment(view.changed),
        contested=view.contested,
        signed=view.signed,
        request=view.document,
    )
