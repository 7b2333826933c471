"""Pulling and looking: the base, manifests, blobs, tags, the catalog, referrers."""

import re
from typing import Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from orchestrator.portal.oci.answers import DIGEST_HEADER, document, errors, page
from orchestrator.portal.oci.asking import who_pulls
from orchestrator.portal.oci.parts import OciParts
from orchestrator.portal.routes_blobs import BlobResponse
from orchestrator.registry.oci.faults import OciCode, OciError
from orchestrator.registry.oci.names import digest_named, is_digest, repository_of
from policies.wire.oci_trains import OCI_INDEX

_RANGE: Final = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_NUMBER: Final = re.compile(r"[0-9]{1,6}")
_MAX_PAGE: Final = 1000


async def base(parts: OciParts, request: Request, _names: dict[str, str]) -> Response:
    """Say that the API is spoken here, to those who may pull."""
    await run_in_threadpool(who_pulls, request, parts.services)
    return document(b"{}", "application/json")


async def catalog(parts: OciParts, request: Request, _names: dict[str, str]) -> Response:
    """List the repositories."""
    await run_in_threadpool(who_pulls, request, parts.services)
    n, last = _page_of(request)
    limit = None if n is None else n + 1
    found = await run_in_threadpool(parts.repositories.names, last, limit)
    return page("/v2/_catalog", "repositories", {}, found, n)


async def tags(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """List a repository's tags."""
    await run_in_threadpool(who_pulls, request, parts.services)
    n, last = _page_of(request)
    name = repository_of(names["name"])
    found = [tag for tag in await run_in_threadpool(parts.repositories.tags, name) if tag > last]
    return page(f"/v2/{name}/tags/list", "tags", {"name": name}, found, n)


async def manifest(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Serve a manifest by tag or digest."""
    await run_in_threadpool(who_pulls, request, parts.services)
    name, reference = repository_of(names["name"]), names["reference"]
    if is_digest(reference):
        digest_named(reference)
    found = await run_in_threadpool(parts.repositories.manifest, name, reference)
    return document(
        found.body, found.media_type, Docker_Content_Digest=found.digest, ETag=f'"{found.digest}"'
    )


async def blob(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """Serve a blob, or a range of one."""
    principal = await run_in_threadpool(who_pulls, request, parts.services)
    name, digest = repository_of(names["name"]), digest_named(names["digest"])
    found = await run_in_threadpool(parts.repositories.blob, name, digest, principal)
    if found.path is None:
        return document(found.data, "application/octet-stream", Docker_Content_Digest=digest)
    asked = request.headers.get("range", "")
    if asked and not _is_satisfiable(asked, found.size):
        return errors(
            416,
            OciCode.SIZE_INVALID,
            "no such range of this blob",
            **{"Content-Range": f"bytes */{found.size}"},
        )
    headers = {DIGEST_HEADER: digest, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
    return BlobResponse(found.path, media_type="application/octet-stream", headers=headers)


async def referrers(parts: OciParts, request: Request, names: dict[str, str]) -> Response:
    """List what refers to a manifest."""
    await run_in_threadpool(who_pulls, request, parts.services)
    name, digest = repository_of(names["name"]), digest_named(names["digest"])
    wanted = request.query_params.get("artifactType")
    body = await run_in_threadpool(parts.repositories.referrers, name, digest, wanted)
    headers = {} if wanted is None else {"OCI_Filters_Applied": "artifactType"}
    return document(body, OCI_INDEX, **headers)


def _page_of(request: Request) -> tuple[int | None, str]:
    text = request.query_params.get("n")
    if text is not None and not _NUMBER.fullmatch(text):
        raise OciError(OciCode.UNSUPPORTED, "n is how many make a page", status=400)
    return None if text is None else min(int(text), _MAX_PAGE), request.query_params.get("last", "")[:255]


def _is_satisfiable(asked: str, size: int) -> bool:
    """Whether it is one range that this blob has (RFC 9110, section 14.1.2)."""
    found = _RANGE.fullmatch(asked)
    if found is None or not (found[1] or found[2]):
        return False
    if not found[1]:
        return int(found[2]) > 0 and size > 0
    return int(found[1]) < size and (not found[2] or int(found[2]) >= int(found[1]))
