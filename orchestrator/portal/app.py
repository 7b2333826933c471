"""Puts the API together; its OpenAPI document is at /api/v1/openapi.json."""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import APIRouter, FastAPI

from orchestrator.portal import (
    problems,
    routes_audit,
    routes_blobs,
    routes_bundles,
    routes_mirror,
    routes_orders,
    routes_requests,
    routes_runs,
    routes_statements,
    routes_stations,
)
from orchestrator.portal.document import described
from orchestrator.portal.limits import Limited
from orchestrator.services import Services

API_PREFIX = "/api/v1"

OPEN_PATHS: Final = frozenset(
    f"{API_PREFIX}{path}" for path in ("/health", "/mirror/metadata/{name}", "/mirror/targets/{path}")
)
"""Whose GET asks nobody who they are."""

_OPEN: Final = re.compile(rf"(?:GET|HEAD) {API_PREFIX}/(?:health|openapi\.json|mirror/.*)")
_STREAMS: Final = re.compile(rf"PUT {API_PREFIX}/blobs/[^/]*")


class Api(FastAPI):
    """The application, with a document that says what holds for every route."""

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        if self.openapi_schema is None:
            self.openapi_schema = described(super().openapi(), OPEN_PATHS)
        return self.openapi_schema


def create_app(services: Services) -> FastAPI:
    """Return the API over `services`."""
    app = Api(
        title="PHT orchestrator",
        summary="Bundles, the board's mirror, requests, run orders, runs and their results; all errors are RFC 9457 problems.",
        version=_version(),
        openapi_url=f"{API_PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    problems.install(app)
    api = APIRouter(prefix=API_PREFIX)
    for module in (
        routes_blobs, routes_bundles, routes_mirror, routes_requests, routes_orders, routes_runs, routes_stations,
        routes_statements, routes_audit,
    ):  # fmt: skip
        api.include_router(module.router)
    app.include_router(api)
    app.add_middleware(Limited, gate=services.gate, open_to_all=_OPEN, streams=_STREAMS)
    return app


def _version() -> str:
    try:
        return version("pht-radiology")
    except PackageNotFoundError:
        return "0"
