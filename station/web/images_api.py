"""The routes of the local API about trains' images."""

import re
from typing import Annotated, Protocol

from fastapi import FastAPI
from pydantic import Field

from policies.documents import StrictModel
from station.images.desk import CollectedView, ImagesView


class CollectRequest(StrictModel):
    """Who asks, and whether everything goes that nothing needs."""

    actor: Annotated[str, Field(min_length=1, max_length=100)]
    unneeded: bool = False


class ImageUses(Protocol):
    """The use cases; `station.images.desk` implements them."""

    def images(self) -> ImagesView:
        """Return what is there."""

    def collect(self, actor: str, *, unneeded: bool) -> CollectedView:
        """Remove what nothing needs."""


def add_image_routes(app: FastAPI, desk: ImageUses) -> None:
    """Add the routes to the local API, whose token gate stands before them too."""

    @app.get("/v1/images")
    def images() -> ImagesView:
        return desk.images()

    @app.post("/v1/images/gc")
    def collect(request: CollectRequest) -> CollectedView:
        actor = f"operator:{re.sub('[^A-Za-z0-9_.@-]', '_', request.actor)[:100]}"
        return desk.collect(actor, unneeded=request.unneeded)
