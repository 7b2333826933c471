"""Blobs by digest: PUT streams to a file and can be taken up again, GET serves ranges."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel

from orchestrator.federation.orders import FolderQueue
from orchestrator.federation.updates import find_update, is_over, update_path
from orchestrator.portal.auth import Caller, CallerOf, ServicesOf, require
from orchestrator.portal.body import BATCH_BYTES, write_body
from orchestrator.portal.document import body_of
from orchestrator.portal.problems import ForbiddenError, problem
from orchestrator.registry.access import Principal, Role
from orchestrator.registry.blobs import Upload
from orchestrator.registry.keeping import Use
from orchestrator.services import Services
from policies.documents import Digest
from policies.errors import NotFoundError, RefusedError, UsageError, WireError

RECEIVED_HEADER = "PHT-Received"
ORDER_OVER = "ORDER_OVER"
_CONTENT_RANGE = re.compile(r"^bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})$")
_READERS = (Role.RESEARCHER, Role.STATION, Role.BOARD, Role.OPERATOR)

router = APIRouter(prefix="/blobs", tags=["blobs"])


class BlobResponse(FileResponse):
    """A file in larger pieces than the framework's: fewer changes of thread per model."""

    chunk_size = BATCH_BYTES


class StoredBlob(BaseModel):
    """What became of an upload."""

    digest: str
    size: int
    complete: bool


class KeptBlob(BaseModel):
    """One of your blobs."""

    digest: str
    size: int
    use: Use
    """What needs it: a train (it stays), an order (until that is finished), nothing, or an upload that is not finished."""


class HoldingShown(BaseModel):
    """What your uploads take; 0 is no limit."""

    limit_bytes: int
    used_bytes: int
    blobs: list[KeptBlob]


@router.head(
    "/{digest}", summary="Whether a blob is here for you; else PHT-Received says how much of your upload is"
)
def head_blob(
    digest: Digest,
    asking: CallerOf,
    parts: ServicesOf,
    order: Annotated[
        Digest | None, Query(description="A station's: whether it sent this for the order already.")
    ] = None,
) -> Response:
    """Answer 200 with the size, or 404."""
    principal = require(asking, *_READERS)
    if principal.role is Role.STATION and order is not None:
        # The same bytes may be weights that it could read (where training began from zero, one step is the average): it sends
        # its update all the same, and what lies apart as its own is what counts.
        path = find_update(parts.home.blobs, principal.name, digest)
    else:
        path = _readable(parts, principal, digest)
    with suppress(FileNotFoundError):
        if path is not None:
            size = path.stat().st_size
            return Response(headers={"Content-Length": str(size), "Accept-Ranges": "bytes"})
    received = parts.blobs.received(digest, asking.principal.id)
    return Response(status_code=404, headers={RECEIVED_HEADER: str(received)})


@router.get("/{digest}", summary="A blob's bytes, with ranges", response_class=FileResponse)
def get_blob(digest: Digest, request: Request, asking: CallerOf, parts: ServicesOf) -> Response:
    """Serve a blob to a party that may read it; who may not learns no more than that it is not there for them."""
    require(asking, *_READERS)
    path = _readable(parts, asking.principal, digest)
    if path is None:
        raise NotFoundError("there is no such blob for you here")
    if "," in request.headers.get("range", ""):
        return problem(416, "UsageError", "one range at a time")
    return BlobResponse(path, media_type="application/octet-stream", headers={"ETag": f'"{digest}"'})


@router.put(
    "/{digest}",
    summary="Send a blob, or the rest of one (Content-Range)",
    status_code=201,
    openapi_extra=body_of("The blob's bytes, or some of them", "application/octet-stream"),
)
async def put_blob(
    digest: Digest,
    request: Request,
    asking: CallerOf,
    parts: ServicesOf,
    order: Annotated[
        Digest | None, Query(description="The run order that a station's release belongs to.")
    ] = None,
    content_length: Annotated[int | None, Header(ge=0)] = None,
    content_range: Annotated[str | None, Header(max_length=64)] = None,
) -> StoredBlob:
    """Store a blob: whole, verified, and readable by its sender until a bundle or an order opens it to others.

    A station's release stays between it and the orchestrator: no other station and no researcher can read it. It lies
    apart from all other blobs until its order's round is averaged; an order that is over takes none (409, `ORDER_OVER`).
    """
    principal = await run_in_threadpool(_may_upload, parts, asking, order)
    offset, total = _extent(content_length, content_range)
    release = principal.role is Role.STATION
    path = parts.blobs.partial_path(digest, principal.id)
    # Until its owner is written down: no other upload finds the room that this one has.
    with await run_in_threadpool(parts.quotas.begin, principal, total, path=path, digest=digest):
        with parts.blobs.upload(digest, principal.id, offset=offset, total=total, release=release) as upload:
            await write_body(request, upload.write)
            apart = _place_apart(parts, principal, order, digest)
            complete = await run_in_threadpool(_complete, upload, asking, apart)
        if complete and apart is not None:
            await run_in_threadpool(_take_back_if_over, parts, order, apart)
        if complete:
            await run_in_threadpool(parts.keeping.own, principal, digest, apart=apart is not None)
    return StoredBlob(digest=digest, size=total, complete=complete)


@router.get("", summary="What your uploads take of what you may have here")
def list_blobs(asking: CallerOf, parts: ServicesOf) -> HoldingShown:
    """List your blobs, the largest first; at most 1000 of them."""
    holding = parts.keeping.holding(require(asking, Role.RESEARCHER))
    return HoldingShown(
        limit_bytes=holding.limit_bytes,
        used_bytes=holding.used_bytes,
        blobs=[KeptBlob(digest=one.digest, size=one.size, use=one.use) for one in holding.blobs],
    )


@router.delete(
    "/{digest}",
    summary="Remove your blob, or what is here of its upload",
    status_code=204,
    response_model=None,
)
def delete_blob(digest: Digest, asking: CallerOf, parts: ServicesOf) -> None:
    """Remove what you sent and need no longer; what a train has, or an order that is not finished, stays (409, `BLOB_IN_USE`)."""
    parts.keeping.remove(require(asking, Role.RESEARCHER), digest)


def _readable(parts: Services, principal: Principal, digest: Digest) -> Path | None:
    path = parts.blobs.path(digest)
    if path is not None and (
        parts.access.may_read_blob(principal, digest) or parts.runs.may_read_weights(principal, digest)
    ):
        return path
    if principal.role is Role.STATION:
        return find_update(parts.home.blobs, principal.name, digest)
    return None


def _place_apart(parts: Services, principal: Principal, order: Digest | None, digest: Digest) -> Path | None:
    if principal.role is not Role.STATION or order is None:
        return None
    return update_path(parts.home.blobs, order, principal.name, digest)


def _check_under_way(parts: Services, order: Digest | None) -> None:
    if order is not None and is_over(FolderQueue(parts.home.runs).folder(order)):
        raise RefusedError(ORDER_OVER, "the order is over and takes no releases any more")


def _take_back_if_over(parts: Services, order: Digest | None, update: Path) -> None:
    """What was placed before the order ended is the run worker's to delete; what came after it goes here."""
    try:
        _check_under_way(parts, order)
    except RefusedError:
        update.unlink(missing_ok=True)
        raise


def _may_upload(parts: Services, asking: Caller, order: Digest | None) -> Principal:
    principal = require(asking, Role.RESEARCHER, Role.STATION)
    if principal.role is Role.STATION and order is None:
        raise ForbiddenError("a station uploads for an order only", hint="Name it: ?order=sha256:...")
    if order is not None and not parts.access.is_party(principal, order):
        raise ForbiddenError("you take no part in this order")
    _check_under_way(parts, order)
    return principal


def _extent(content_length: int | None, content_range: str | None) -> tuple[int, int]:
    if content_length is None:
        raise UsageError("an upload states its Content-Length")
    if content_range is None:
        return 0, content_length
    match = _CONTENT_RANGE.fullmatch(content_range)
    if match is None:
        raise UsageError("Content-Range has the form: bytes <first>-<last>/<total>")
    first, last, total = (int(group) for group in match.groups())
    if not first <= last < total or last - first + 1 != content_length:
        raise UsageError("Content-Range and Content-Length do not agree")
    return first, total


def _complete(upload: Upload, asking: Caller, apart: Path | None) -> bool:
    if asking.body_digest is not None and asking.body_digest != upload.body_digest:
        upload.drop()
        raise WireError("the body is not the one that was signed")
    return upload.finish(apart)
