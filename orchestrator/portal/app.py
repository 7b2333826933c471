"""Puts the API together; its OpenAPI document is at /api/v1/openapi.json."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, FastAPI

from orchestrator.portal import (
    problems,
    routes_blobs,
    routes_bundles,
    routes_mirror,
    routes_orders,
    routes_runs,
    routes_statements,
    routes_stations,
)
from orchestrator.services import Services

API_PREFIX = "/api/v1"


def create_app(services: Services) -> FastAPI:
    """Return the API over `services`."""
    app = FastAPI(
        title="PHT orchestrator",
        summary="Bundles, the board's mirror, run orders, runs and their results.",
        version=_version(),
        openapi_url=f"{API_PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    problems.install(app)
    api = APIRouter(prefix=API_PREFIX)
    for module in (
        routes_blobs, routes_bundles, routes_mirror, routes_orders, routes_runs, routes_stations, routes_statements,
    ):  # fmt: skip
        api.include_router(module.router)
    app.include_router(api)
    return app


def _version() -> str:
    try:
        return version("pht-radiology")
    except PackageNotFoundError:
        return "0"
