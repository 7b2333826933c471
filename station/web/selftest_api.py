"""The route of the local API by which a selftest has the audit say that it ran."""

from typing import Protocol

from fastapi import FastAPI

from station.selftest.recording import SelftestRan


class SelftestUses(Protocol):
    """The use case; `station.selftest.recording.SelftestDesk` implements it."""

    def selftest_ran(self, ran: SelftestRan) -> int:
        """Write the entry and return its number."""


def add_selftest_routes(app: FastAPI, desk: SelftestUses) -> None:
    """Add the route to the local API, whose token gate stands before it too."""

    @app.post("/v1/selftest")
    def selftest_ran(ran: SelftestRan) -> dict[str, int]:
        return {"entry": desk.selftest_ran(ran)}
