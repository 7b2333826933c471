"""Stations' statements about their records, their receipts, and the witness's document over all of them."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.portal.body import bounded_body
from orchestrator.portal.document import body_of
from orchestrator.portal.problems import ForbiddenError
from orchestrator.registry.access import Role
from orchestrator.registry.audit import Action, AuditEvent
from policies.documents import digest_of
from policies.errors import TrustError
from policies.station_heads import MAX_HEADS_BYTES
from policies.station_statement import MAX_STATEMENT_BYTES, StatedList, StatementAnswer

router = APIRouter(prefix="/stations", tags=["stations"])
_READERS = (Role.BOARD, Role.WITNESS, Role.OPERATOR, Role.AUDITOR)


@router.get("/statements", summary="Which statement of each station is the newest")
def list_statements(asking: CallerOf, parts: ServicesOf) -> StatedList:
    """List the newest statements by their digests."""
    require(asking, *_READERS)
    return parts.statements.stated()


@router.get("/heads", summary="The witness's newest document over all stations")
def get_heads(asking: CallerOf, parts: ServicesOf) -> Response:
    """Serve it as it came: it proves itself."""
    require(asking, Role.STATION, *_READERS)
    return Response(parts.statements.heads(), media_type="application/json")


@router.put(
    "/heads",
    summary="The witness sends its document",
    status_code=204,
    openapi_extra=body_of("`policies.station_heads.StationHeads` in a DSSE envelope"),
)
async def put_heads(request: Request, asking: CallerOf, parts: ServicesOf) -> Response:
    """Keep the witness's document, after verifying its signature."""
    principal = require(asking, Role.WITNESS)
    data = await bounded_body(request, 2 * MAX_HEADS_BYTES)
    event = AuditEvent(action=Action.HEADS_TAKEN, who=principal.id, about=digest_of(data), outcome="begun")
    await run_in_threadpool(parts.audit.append, event)
    await run_in_threadpool(parts.statements.take_heads, data)
    return Response(status_code=204)


@router.put(
    "/{name}/statement",
    summary="A station states the ends of its chains and its counters",
    openapi_extra=body_of("`policies.station_statement.StationStatement` in a DSSE envelope"),
)
async def put_statement(name: str, request: Request, asking: CallerOf, parts: ServicesOf) -> StatementAnswer:
    """Take up a statement and countersign it."""
    principal = require(asking, Role.STATION)
    if principal.name != name:
        raise ForbiddenError("a station states what it is itself")
    data = await bounded_body(request, 2 * MAX_STATEMENT_BYTES)
    if digest_of(data) != asking.body_digest:
        raise TrustError("the body is not the one that was signed")
    return await run_in_threadpool(parts.statements.take, name, data)


@router.get("/{name}/statement", summary="The newest statement of a station, with its receipt")
def get_statement(name: str, asking: CallerOf, parts: ServicesOf) -> StatementAnswer:
    """Show the newest statement to its station, the board, the witness and the operator."""
    principal = require(asking, Role.STATION, *_READERS)
    if principal.role is Role.STATION and principal.name != name:
        raise ForbiddenError("a station sees its own statements")
    return parts.statements.newest(name)
