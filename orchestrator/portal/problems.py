"""One error shape for all of the API: RFC 9457 problem details, with our own `code` and `hint`.

The text of an exception that is not ours is never sent.
"""

import logging
import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestrator.registry.quota import QuotaError
from policies.errors import (
    DocumentError,
    NotFoundError,
    PhtError,
    RefusedError,
    StorageError,
    TrustError,
    UnavailableError,
    UsageError,
    WireError,
)

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[PhtError], int], ...] = (
    (NotFoundError, 404),
    (RefusedError, 409),
    (TrustError, 422),
    (DocumentError, 422),
    (WireError, 400),
    (UsageError, 400),
    (StorageError, 507),
    (UnavailableError, 503),
)

_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "3"}}


class UnauthorisedError(TrustError):
    """The request proves no identity."""


class ForbiddenError(TrustError):
    """The identity that the request proves may not do this."""


class ConflictError(UsageError):
    """The thing exists already and is another."""


class TooLargeError(UsageError):
    """The request's body is over a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is over the limit of {limit} bytes")


class TooManyRequestsError(UsageError):
    """The party, or its address, asks too often."""

    def __init__(self, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__("too many requests", hint=f"Ask again in {self.retry_after_s} s.")


def problem(status: int, code: str, title: str, hint: str = "", **facts: int) -> JSONResponse:
    """Return one problem as a response, with members of its own (RFC 9457 section 3.2)."""
    body = {"type": "about:blank", "status": status, "code": code, "title": title, **facts}
    if hint:
        body["hint"] = hint
    headers = _HEADERS.get(status)
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make the application answer every error in this shape."""
    app.add_exception_handler(PhtError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)


def status_of(error: PhtError) -> int:
    """Return the HTTP status of a fault of ours."""
    if isinstance(error, UnauthorisedError):
        return 401
    if isinstance(error, ForbiddenError):
        return 403
    if isinstance(error, ConflictError):
        return 409
    if isinstance(error, TooLargeError):
        return 413
    if isinstance(error, TooManyRequestsError):
        return 429
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def answer(error: PhtError) -> JSONResponse:
    """Return one of our errors as a response."""
    code = error.code if isinstance(error, RefusedError) else type(error).__name__
    facts = error.facts if isinstance(error, QuotaError) else {}
    response = problem(status_of(error), code, error.message, error.hint, **facts)
    if isinstance(error, TooManyRequestsError):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, PhtError):
        return problem(500, "Fault", "an unexpected fault")
    if status_of(error) >= 500:
        _LOG.error("request_failed", extra={"code": type(error).__name__})
    return answer(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    # Where, and not what: the framework's own words may quote the request.
    found = error.errors() if isinstance(error, RequestValidationError) else []
    where = ", ".join(dict.fromkeys(".".join(map(str, item["loc"][:2])) for item in found[:4]))
    return problem(
        422, "DocumentError", f"the request does not fit: {where}"[:300], "See the API's description of it."
    )


async def _http(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    titles = {404: "there is no such thing here", 405: "this method is not offered here"}
    return problem(status, "NotFoundError" if status == 404 else "UsageError", titles.get(status, "refused"))


async def _fault(request: Request, error: Exception) -> JSONResponse:
    _LOG.error(
        "request_fault", extra={"kind": type(error).__name__, "route": request.scope.get("path", "")[:200]}
    )
    return problem(500, "Fault", "an unexpected fault in the orchestrator")
