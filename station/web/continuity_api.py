"""The routes of the local API about the station's records: what was countersigned, and reconciling after a restore."""

import re
from typing import Protocol

from fastapi import FastAPI

from station.continuity.desk import HeadsView, PlanView
from station.web.api import Word


class ContinuityUses(Protocol):
    """The use cases; `station.continuity.desk` implements them."""

    def heads(self) -> HeadsView:
        """Return what was countersigned last."""

    def plan(self) -> PlanView:
        """Return what reconciling would do."""

    def reconcile(self, actor: str) -> PlanView:
        """Do it."""


def add_continuity_routes(app: FastAPI, desk: ContinuityUses) -> None:
    """Add the routes to the local API, whose token gate stands before them too."""

    @app.get("/v1/heads")
    def heads() -> HeadsView:
        return desk.heads()

    @app.get("/v1/reconcile")
    def plan() -> PlanView:
        return desk.plan()

    @app.post("/v1/reconcile")
    def reconcile(word: Word) -> PlanView:
        return desk.reconcile(f"operator:{re.sub('[^A-Za-z0-9_.@-]', '_', word.actor)[:100]}")
