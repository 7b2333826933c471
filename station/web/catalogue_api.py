"""The catalogue's routes of the local API: parse, call one use case, render."""

from fastapi import FastAPI, Response

from station.catalogue.query import CatalogueQuery
from station.web.catalogue_views import (
    CatalogueUses,
    CountsView,
    ReadinessRequest,
    ReadinessView,
    ToldView,
)


def add_catalogue_routes(app: FastAPI, desk: CatalogueUses) -> None:
    """Add the routes to the local API, whose token gate stands before them too."""

    @app.post("/v1/catalogue/query")
    def query(query: CatalogueQuery) -> list[CountsView]:
        return desk.query(query)

    @app.get("/v1/catalogue/told")
    def told() -> list[ToldView]:
        return desk.told()

    @app.post("/v1/catalogue/dcat")
    def dcat() -> Response:
        return Response(desk.export_dcat(), media_type="application/ld+json")

    @app.post("/v1/readiness")
    def start_readiness(request: ReadinessRequest) -> ReadinessView:
        return desk.start_readiness(request)

    @app.get("/v1/readiness")
    def readiness() -> ReadinessView:
        return desk.readiness()

    @app.post("/v1/profile")
    def profile() -> Response:
        return Response(desk.export_profile(), media_type="application/json")
