"""The route of the local API that says what was done under given orders and cohorts."""

from typing import Protocol

from fastapi import FastAPI

from station.runs.accesses import AccessesRequest, AccessView


class AccessUses(Protocol):
    """The use case; `station.runs.accesses` implements it."""

    def accesses(self, request: AccessesRequest) -> list[AccessView]:
        """Return every line of the audit about these uses."""


def add_access_routes(app: FastAPI, desk: AccessUses) -> None:
    """Add the route to the local API, whose token gate stands before it too."""

    @app.post("/v1/accesses")
    def accesses(request: AccessesRequest) -> list[AccessView]:
        return desk.accesses(request)
