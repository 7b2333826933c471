"""The route of the local API about what noisy releases have cost patients."""

from typing import Protocol

from fastapi import FastAPI

from station.egress.privacy.spending import SpendingView


class Spending(Protocol):
    """The use case; `station.egress.privacy.spending` implements it."""

    def view(self) -> SpendingView:
        """Return what is spent now."""


def add_privacy_routes(app: FastAPI, desk: Spending) -> None:
    """Add the route to the local API, whose token gate stands before it too."""

    @app.get("/v1/privacy")
    def privacy() -> SpendingView:
        return desk.view()
