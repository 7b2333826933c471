"""How the distribution API answers: its errors, its headers, pages of lists."""

import json
import logging
from typing import Final
from urllib.parse import quote

from fastapi.responses import JSONResponse, Response

from orchestrator.portal.problems import (
    ForbiddenError,
    TooManyRequestsError,
    UnauthorisedError,
    status_of,
)
from orchestrator.registry.oci.faults import OciCode, OciError
from orchestrator.registry.quota import QuotaError
from policies.errors import PhtError

DIGEST_HEADER: Final = "Docker-Content-Digest"
_VERSION: Final = {"Docker-Distribution-API-Version": "registry/2.0"}
_LOG = logging.getLogger(__name__)


def errors(status: int, code: OciCode, message: str, **headers: str) -> JSONResponse:
    """Return one error in the specification's shape."""
    sent = dict(headers)
    if status == 401:
        # Docker and skopeo send user and password for it; a client with a bearer token sends it unasked.
        sent["WWW-Authenticate"] = 'Basic realm="pht"'
    return JSONResponse(
        {"errors": [{"code": code, "message": message, "detail": None}]}, status, headers={**_VERSION, **sent}
    )


def error_of(error: PhtError) -> JSONResponse:
    """Return the answer for a fault of ours."""
    if isinstance(error, OciError):
        return errors(error.status, error.code, error.message)
    if isinstance(error, UnauthorisedError):
        return errors(401, OciCode.UNAUTHORIZED, error.message)
    if isinstance(error, ForbiddenError):
        return errors(403, OciCode.DENIED, error.message)
    if isinstance(error, QuotaError):
        return errors(403, OciCode.DENIED, f"{error.message}. {error.hint}")
    status = status_of(error)
    if status >= 500:
        _LOG.error("oci_request_failed", extra={"code": type(error).__name__})
    if isinstance(error, TooManyRequestsError):
        after = {"Retry-After": str(error.retry_after_s)}
        return errors(status, OciCode.TOOMANYREQUESTS, error.message, **after)
    return errors(status, OciCode.UNSUPPORTED, error.message)


def empty(status: int, **headers: str) -> Response:
    """Return an answer without a body; underscores in names of headers are hyphens."""
    return Response(
        status_code=status,
        headers={**_VERSION, **{name.replace("_", "-"): value for name, value in headers.items()}},
    )


def document(body: bytes, media_type: str, **headers: str) -> Response:
    """Return a document's own bytes; to HEAD, the server leaves them out."""
    return Response(
        body,
        headers={**_VERSION, **{name.replace("_", "-"): value for name, value in headers.items()}},
        media_type=media_type,
    )


def page(path: str, key: str, more: dict[str, str], items: list[str], n: int | None) -> Response:
    """Return one page of a list, with the address of the next one (RFC 8288).

    Args:
        path: the list's address.
        key: under which the items stand.
        more: what stands beside them.
        items: those after the last one that the caller has; one more than a page tells that there is a next.
        n: how many make a page.
    """
    shown = items if n is None else items[:n]
    headers = dict(_VERSION)
    if n and len(items) > n:
        headers["Link"] = f'<{path}?n={n}&last={quote(shown[-1])}>; rel="next"'
    return Response(json.dumps({**more, key: shown}), headers=headers, media_type="application/json")
