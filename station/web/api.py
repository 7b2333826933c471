"""The local API (FastAPI, OpenAPI) on a Unix socket: parses, calls one use case of the desk, renders.

Every request shows the token of `run/api.token`. Errors are RFC 9457 problem details.
"""

import hmac
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field

from policies.documents import StrictModel
from policies.errors import ExitCode, PhtError, RefusedError, UsageError
from station.web.views import (
    ChainView,
    CollectionView,
    Desk,
    ReleaseView,
    RuleView,
    RunView,
    StatusView,
)

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

Chain = Literal["audit", "egress"]


class Word(StrictModel):
    """The operator's word on one order."""

    actor: Annotated[str, Field(min_length=1, max_length=100)]


class TokenError(UsageError):
    """The request shows no token, or another one."""

    exit_code = ExitCode.TRUST


def create_api(desk: Desk, token: str) -> FastAPI:
    """Build the application.

    Args:
        desk: the use cases.
        token: what a caller must show as a bearer token.
    """

    def authorised(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise TokenError("the station's token is missing or wrong", hint="It is in run/api.token.")

    app = FastAPI(title="pht-station", version="1", dependencies=[Depends(authorised)], redoc_url=None)
    app.exception_handler(PhtError)(_problem)
    _reading(app, desk)
    _deciding(app, desk)
    return app


def _reading(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/status")
    def status() -> StatusView:
        return desk.status()

    @app.get("/v1/runs")
    def runs() -> list[RunView]:
        return desk.runs()

    @app.get("/v1/runs/{order}/explain")
    def explain(order: str) -> list[RuleView]:
        return desk.explain(order)

    @app.get("/v1/runs/{order}/logs", response_class=PlainTextResponse)
    def logs(order: str) -> str:
        return desk.logs(order)

    @app.get("/v1/releases")
    def releases() -> list[ReleaseView]:
        return desk.releases()

    @app.get("/v1/catalogue")
    def catalogue() -> list[CollectionView]:
        return desk.collections()

    @app.get("/v1/chains/{chain}")
    def verify(chain: Chain) -> ChainView:
        return desk.verify(chain)

    @app.get("/v1/chains/{chain}/export")
    def export(chain: Chain) -> Response:
        return Response(desk.export(chain), media_type="application/jsonl")


def _deciding(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/runs/{order}/approve")
    def approve(order: str, word: Word) -> RunView:
        return desk.decide(order, "approve", word.actor)

    @app.post("/v1/runs/{order}/hold")
    def hold(order: str, word: Word) -> RunView:
        return desk.decide(order, "hold", word.actor)

    @app.post("/v1/runs/{order}/stop")
    def stop(order: str, word: Word) -> RunView:
        return desk.decide(order, "stop", word.actor)


def _problem(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, PhtError):
        raise error
    code = error.code if isinstance(error, RefusedError) else type(error).__name__
    status = _HTTP_STATUS.get(error.exit_code, 500)
    body = {
        "type": f"urn:pht:error:{code}",
        "title": error.message,
        "status": status,
        "detail": error.hint,
        "code": code,
        "exit_code": int(error.exit_code),
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")
