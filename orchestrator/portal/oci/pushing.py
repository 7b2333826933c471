"""Pushing: upload sessions and manifests."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from orchestrator.portal.body import bounded_body, write_body
from orchestrator.portal.oci.answers import empty
from orchestrator.portal.oci.asking import who_pushes
from orchestrator.portal.oci.parts import OciParts
from orchestrator.registry.access import Principal
from orchestrator.registry.oci.documents import MAX_MANIFEST
from orchestrator.registry.oci.faults import OciCode, OciError
from orchestrator.registry.oci.names import digest_named, repository_of
from orchestrator.registry.oci.uploads import SessionWriter
from policies.documents import Digest
from policies.errors import UsageError

_CONTENT_RANGE: Final = re.compile(r"(?:bytes )?([0-9]{1,15})-([0-9]{1,15})(?:/(?:[0-9]{1,15}|\*))?")
_LENGTH: Final = re.compile(r"[0-9]{1,15}")


async def begin(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Open a session; take a blob over from another repository; or take a whole blob at once."""
    principal = await run_in_threadpool(who_pushes, request, parts.services)
    name = repository_of(names["name"])
    mount, source = request.query_params.get("mount"), request.query_params.get("from")
    if mount is not None:
        wanted = digest_named(mount)
        if source is not None and await run_in_threadpool(
            parts.repositories.may_mount, wanted, repository_of(source), principal
        ):
            size = parts.services.blobs.size(wanted) or 0
            with await run_in_threadpool(parts.services.quotas.begin, principal, size, digest=wanted):
                await run_in_threadpool(parts.services.keeping.own, principal, wanted)
            return _created(name, wanted)
    whole = request.query_params.get("digest")
    wanted_whole = None if whole is None else digest_named(whole)
    session = await run_in_threadpool(parts.uploads.begin, principal, name)
    if wanted_whole is None:
        return _accepted(name, session, 0)
    return await _finish(parts, request, principal, (name, session), wanted_whole)


async def state(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Say how far a session is."""
    principal = await run_in_threadpool(who_pushes, request, parts.services)
    name, session = repository_of(names["name"]), names["session"]
    here = await run_in_threadpool(parts.uploads.received, principal, name, session)
    return _accepted(name, session, here, status=204)


async def chunk(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Append to a session."""
    principal = await run_in_threadpool(who_pushes, request, parts.services)
    name, session = repository_of(names["name"]), names["session"]
    offset, length = _extent(request)
    with parts.uploads.writing(principal, name, session, offset) as writer:
        async with _room(parts, principal, writer):
            await _receive(request, writer, length)
            here = await run_in_threadpool(writer.sync)
    return _accepted(name, session, here)


async def finish(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Append the rest, and make the session's bytes a blob."""
    principal = await run_in_threadpool(who_pushes, request, parts.services)
    name, session = repository_of(names["name"]), names["session"]
    digest = request.query_params.get("digest")
    if digest is None:
        raise OciError(OciCode.DIGEST_INVALID, "say what the whole is: ?digest=sha256:...")
    return await _finish(parts, request, principal, (name, session), digest_named(digest))


async def cancel(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """End a session."""
    principal = await run_in_threadpool(who_pushes, request, parts.services)
    await run_in_threadpool(parts.uploads.cancel, principal, repository_of(names["name"]), names["session"])
    return empty(204)


async def put_manifest(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Take a manifest; what it becomes is decided by `Accepting`."""
    principal = await run_in_threadpool(who_pushes, request, parts.services)
    name = repository_of(names["name"])
    try:
        body = await bounded_body(request, MAX_MANIFEST)
    except UsageError as error:
        raise OciError(OciCode.SIZE_INVALID, error.message, status=413) from error
    await run_in_threadpool(parts.services.quotas.check, principal, len(body))
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    kept = await run_in_threadpool(parts.accepting.put, principal, name, names["reference"], media_type, body)
    headers = {} if kept.subject is None else {"OCI_Subject": kept.subject}
    return empty(
        201, Location=f"/v2/{name}/manifests/{kept.digest}", Docker_Content_Digest=kept.digest, **headers
    )


async def _finish(
    parts: OciParts, request: Request, principal: Principal, place: tuple[str, str], digest: Digest
) -> Response:
    name, session = place
    offset, length = _extent(request)
    with parts.uploads.writing(principal, name, session, offset) as writer:
        async with _room(parts, principal, writer, digest):
            await _receive(request, writer, length)
            await run_in_threadpool(parts.uploads.finish, writer, digest)
            await run_in_threadpool(parts.services.keeping.own, principal, digest)
    return _created(name, digest)


@asynccontextmanager
async def _room(
    parts: OciParts, principal: Principal, writer: SessionWriter, digest: Digest | None = None
) -> AsyncIterator[None]:
    """Hold the room of what arrives, until its owner is written down or it stays as it is."""
    begin = parts.services.quotas.begin
    with await run_in_threadpool(begin, principal, writer.position, path=writer.path, digest=digest) as share:
        writer.room = share.grow
        yield


async def _receive(request: Request, writer: SessionWriter, length: int | None) -> None:
    """Write a body; what came before a break stays, what a whole body lies about does not."""
    began = writer.position
    await write_body(request, writer.write)
    if length is not None and writer.position - began != length:
        await run_in_threadpool(writer.back_to, began)
        raise OciError(OciCode.SIZE_INVALID, "the body is not as long as its Content-Range says")


def _extent(request: Request) -> tuple[int | None, int | None]:
    """Where a chunk begins and how long it is, where the request says so."""
    header = request.headers.get("content-range")
    if header is None:
        return None, None
    found = _CONTENT_RANGE.fullmatch(header)
    if found is None or int(found[2]) < int(found[1]):
        raise OciError(OciCode.BLOB_UPLOAD_INVALID, "Content-Range has the form <first>-<last>", status=416)
    length = int(found[2]) - int(found[1]) + 1
    sent = request.headers.get("content-length", "")
    if _LENGTH.fullmatch(sent) and int(sent) != length:
        raise OciError(OciCode.SIZE_INVALID, "Content-Range and Content-Length do not agree")
    return int(found[1]), length


def _accepted(name: str, session: str, here: int, status: int = 202) -> Response:
    return empty(
        status,
        Location=f"/v2/{name}/blobs/uploads/{session}",
        Range=f"0-{max(here - 1, 0)}",
        Docker_Upload_UUID=session,
    )


def _created(name: str, digest: Digest) -> Response:
    return empty(201, Location=f"/v2/{name}/blobs/{digest}", Docker_Content_Digest=digest)
