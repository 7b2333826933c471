"""The mirror of the board's repository: open to read, written by the board, and by its witness (timestamp only)."""

from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from orchestrator.portal.auth import CallerOf, ServicesOf, require
from orchestrator.portal.body import bounded_body
from orchestrator.portal.document import body_of
from orchestrator.portal.problems import ForbiddenError
from orchestrator.registry.access import Principal, Role
from orchestrator.registry.audit import Action, AuditEvent
from orchestrator.registry.mirror import MAX_METADATA_BYTES, MAX_TARGET_BYTES, TIMESTAMP
from orchestrator.services import Services
from policies.documents import digest_of

router = APIRouter(prefix="/mirror", tags=["mirror"])


@router.get("/metadata/{name}", summary="TUF metadata", response_class=FileResponse)
def get_metadata(name: str, parts: ServicesOf) -> Response:
    """Serve a metadata file to anyone: it proves itself."""
    return FileResponse(parts.mirror.metadata(name), media_type="application/json")


@router.get("/targets/{path:path}", summary="A signed policy or the register", response_class=FileResponse)
def get_target(path: str, parts: ServicesOf) -> Response:
    """Serve a target file to anyone: it proves itself."""
    return FileResponse(parts.mirror.target(path), media_type="application/octet-stream")


@router.put(
    "/metadata/{name}",
    summary="Publish metadata",
    status_code=204,
    openapi_extra=body_of("TUF metadata of the name's role and version"),
)
async def put_metadata(
    name: str, request: Request, asking: CallerOf, parts: ServicesOf, background: BackgroundTasks
) -> Response:
    """Write a metadata file; a new timestamp makes the orchestrator read the register of stations again."""
    principal = require(asking, Role.BOARD, Role.WITNESS)
    if principal.role is Role.WITNESS and name != TIMESTAMP:
        raise ForbiddenError("the witness writes timestamp.json and nothing else")
    data = await bounded_body(request, MAX_METADATA_BYTES)
    await run_in_threadpool(_record, parts, principal, f"metadata/{name}", data)
    await run_in_threadpool(parts.mirror.put_metadata, name, data)
    if name == TIMESTAMP:
        background.add_task(parts.stations.sync_quietly)
        background.add_task(parts.requests.follow_quietly)
    return Response(status_code=204, background=background)


@router.put(
    "/targets/{path:path}",
    summary="Publish a target",
    status_code=204,
    openapi_extra=body_of("The target's bytes", "application/octet-stream"),
)
async def put_target(path: str, request: Request, asking: CallerOf, parts: ServicesOf) -> Response:
    """Write a target file."""
    principal = require(asking, Role.BOARD)
    data = await bounded_body(request, MAX_TARGET_BYTES)
    await run_in_threadpool(_record, parts, principal, f"targets/{path}", data)
    await run_in_threadpool(parts.mirror.put_target, path, data)
    return Response(status_code=204)


def _record(parts: Services, principal: Principal, what: str, data: bytes) -> None:
    # Before the file: the mirror is not in the database.
    about = f"{what[:200]} {digest_of(data)}"
    parts.audit.append(
        AuditEvent(action=Action.MIRROR_PUBLISHED, who=principal.id, about=about, outcome="begun")
    )
