"""The local API (FastAPI, OpenAPI) on a Unix socket: parses, calls one use case of the desk, renders.

Every request shows the token of `run/api.token`; errors are problem details (`station.web.edge`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Response
from fastapi import Path as APIPath
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import Field

from policies.documents import Name, StrictModel
from policies.order import Stage
from station.web.edge import put_behind_token
from station.web.views import (
    AnonymityView,
    ChainView,
    CollectionView,
    Desk,
    ReleaseView,
    RuleView,
    RunView,
    StatusView,
)

Chain = Literal["audit", "egress"]
_CHUNK = 1 << 20


class Word(StrictModel):
    """The operator's word on one order."""

    actor: Annotated[str, Field(min_length=1, max_length=100)]


def create_api(desk: Desk, token: str) -> FastAPI:
    """Build the application.

    Args:
        desk: the use cases.
        token: what a caller must show as a bearer token.
    """
    app = FastAPI(title="pht-station", version="1", redoc_url=None)
    put_behind_token(app, token, "run/api.token")
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

    @app.get("/v1/runs/{order}/anonymity")
    def anonymity(order: str) -> AnonymityView:
        return desk.anonymity(order)

    @app.get("/v1/runs/{order}/logs", response_class=PlainTextResponse)
    def logs(order: str) -> str:
        return desk.logs(order)

    @app.get("/v1/runs/{order}/evidence")
    def evidence(order: str) -> Response:
        return StreamingResponse(_once(desk.evidence(order)), media_type="application/zip")

    @app.get("/v1/releases")
    def releases() -> list[ReleaseView]:
        return desk.releases()

    @app.get("/v1/releases/{order}/{round_}/{stage}/{part}")
    def payload(
        order: Annotated[str, APIPath(pattern=r"^sha256:[0-9a-f]{64}$")],
        round_: int,
        stage: Stage,
        part: Literal["reply", "arrays"],
    ) -> Response:
        content = desk.payload(order, round_, stage, part)
        if isinstance(content, Path):
            return FileResponse(content, media_type="application/octet-stream")
        return Response(content, media_type="application/json")

    @app.get("/v1/catalogue")
    def catalogue() -> list[CollectionView]:
        return desk.collections()

    @app.get("/v1/chains/{chain}")
    def verify(chain: Chain) -> ChainView:
        return desk.verify(chain)

    @app.get("/v1/chains/{chain}/export")
    def export(chain: Chain) -> Response:
        return Response(desk.export(chain), media_type="application/jsonl")

    @app.get("/v1/usage")
    def usage(policy: Annotated[Name | None, Query()] = None) -> Response:
        return Response(desk.usage(policy), media_type="application/json")


def _once(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and remove it."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    finally:
        path.unlink(missing_ok=True)


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
