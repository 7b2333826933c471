"""The route of the local API about what trains marked and measured in the hospital's own images."""

from typing import Protocol

from fastapi import FastAPI

from station.predictions.desk import PredictionsView


class Predictions(Protocol):
    """The use case; `station.predictions.desk` implements it."""

    def view(self) -> PredictionsView:
        """Return what is kept now."""


def add_prediction_routes(app: FastAPI, desk: Predictions) -> None:
    """Add the route to the local API, whose token gate stands before it too."""

    @app.get("/v1/predictions")
    def predictions() -> PredictionsView:
        return desk.view()
