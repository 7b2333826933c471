"""The route of the local API by which the operator asks for this hospital's mirror report of a run."""

from typing import Annotated, Protocol

from fastapi import FastAPI
from fastapi import Path as APIPath

from policies.documents import Digest
from policies.mirror_report import MirrorReport


class MirrorUses(Protocol):
    """The use case; `station.runs.mirror.MirrorReports` implements it."""

    def fetch(self, order: Digest) -> MirrorReport:
        """Return our report of a run that is over."""


def add_mirror_routes(app: FastAPI, reports: MirrorUses) -> None:
    """Add the route to the local API, whose token gate stands before it too."""

    @app.get("/v1/runs/{order}/mirror-report")
    def mirror_report(order: Annotated[str, APIPath(pattern=r"^sha256:[0-9a-f]{64}$")]) -> MirrorReport:
        return reports.fetch(order)
