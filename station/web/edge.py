"""The edge that the station's local APIs share: the token before everything, and one shape for every error (RFC 9457).

Knows no use case. Invariants: no route, the documentation's included, answers without the token; an error's body is made here,
from our own faults' texts, and from nothing that a library or a caller wrote.
"""

import hmac
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from policies.errors import ExitCode, NotFoundError, PhtError, RefusedError, UsageError

log = logging.getLogger(__name__)

_HTTP_STATUS = {
    ExitCode.USAGE: 409,
    ExitCode.DOCUMENT: 422,
    ExitCode.REFUSED: 403,
    ExitCode.TRUST: 403,
    ExitCode.UNAVAILABLE: 503,
    ExitCode.STORAGE: 507,
    ExitCode.DATA: 422,
    ExitCode.NOT_FOUND: 404,
}


class TokenError(UsageError):
    """The request shows no token, or another one."""

    exit_code = ExitCode.TRUST


class RequestError(UsageError):
    """The request is not one that this API takes."""


def put_behind_token(app: FastAPI, token: str, where: str) -> None:
    """Ask the token of every request, and render every error as a problem.

    Args:
        app: the local API.
        token: what a caller must show as a bearer token.
        where: the file that holds it, for the hint.
    """
    app.add_middleware(_TokenGate, token=token, where=where)
    app.exception_handler(PhtError)(_ours)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(Exception)(_bug)


def problem(error: PhtError, status: int | None = None) -> JSONResponse:
    """Return an error as RFC 9457 problem details, with the exit code that a program ends with."""
    code = error.code if isinstance(error, RefusedError) else type(error).__name__
    status = status or _HTTP_STATUS.get(error.exit_code, 500)
    body = {
        "type": f"urn:pht:error:{code}",
        "title": error.message,
        "status": status,
        "detail": error.hint,
        "code": code,
        "exit_code": int(error.exit_code),
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


class _TokenGate:
    """Lets a request through to the application if it shows the token."""

    def __init__(self, app: ASGIApp, token: str, where: str) -> None:
        self._app, self._where = app, where
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            shown = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(shown, self._expected):
                refusal = TokenError(
                    "the station's token is missing or wrong", hint=f"It is in {self._where}."
                )
                await problem(refusal)(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            return
        await self._app(scope, receive, send)


def _ours(_request: Request, error: Exception) -> JSONResponse:
    return problem(error if isinstance(error, PhtError) else PhtError("the station failed"))


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    where = "the request"
    if isinstance(error, RequestValidationError) and error.errors():
        where = ".".join(str(part) for part in error.errors()[0]["loc"])[:100]
    return problem(
        RequestError(f"{where} is not what this API takes", hint="See /openapi.json, with the token."), 422
    )


def _http(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return problem(NotFoundError("there is nothing at this address"))
    return problem(RequestError("this address takes no such request"), status)


def _bug(_request: Request, _error: Exception) -> JSONResponse:
    # The server logs where it happened; its text may quote data.
    return problem(PhtError("the station failed", hint="Its log says where; report it to its makers."))
