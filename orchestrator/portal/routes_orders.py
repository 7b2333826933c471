"""Run orders: signed by the requester, given by a researcher, queued once."""

from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.portal.body import bounded_body
from orchestrator.portal.document import body_of
from orchestrator.registry.access import Role
from orchestrator.registry.orders import MAX_ORDER_BYTES
from policies.documents import Digest

router = APIRouter(prefix="/orders", tags=["orders"])


class OrderAccepted(BaseModel):
    """The order is queued; `digest` names its run."""

    digest: str
    rounds: int
    stations: list[str]


@router.post(
    "",
    summary="Give a run order (DSSE envelope)",
    status_code=201,
    openapi_extra=body_of("`policies.order.RunOrder` in a DSSE envelope"),
)
async def post_order(
    request: Request, asking: CallerOf, parts: ServicesOf, background: BackgroundTasks
) -> OrderAccepted:
    """Check an order as far as an orchestrator can, and queue it."""
    principal = require(asking, Role.RESEARCHER)
    envelope = await bounded_body(request, MAX_ORDER_BYTES)
    accepted = await run_in_threadpool(parts.orders.accept, principal, envelope)
    background.add_task(parts.requests.follow_quietly)
    return OrderAccepted(
        digest=accepted.order_digest, rounds=accepted.order.rounds, stations=list(accepted.order.stations)
    )


@router.get("/{digest}", summary="An order as it was given", response_class=Response)
def get_order(digest: Digest, asking: CallerOf, parts: ServicesOf) -> Response:
    """Return the signed envelope."""
    principal = require(asking, Role.RESEARCHER, Role.BOARD, Role.OPERATOR)
    return Response(parts.runs.envelope(principal, digest), media_type="application/json")
