"""The routes of the local API about releases that wait for a person."""

from typing import Annotated

from fastapi import FastAPI, Query

from station.web.review_views import (
    Actor,
    ReleaseWord,
    ReviewDetailView,
    ReviewUses,
    ReviewView,
    WithholdWord,
)


def add_review_routes(app: FastAPI, desk: ReviewUses) -> None:
    """Add the routes to the local API, whose token gate stands before them too."""

    @app.get("/v1/reviews")
    def reviews(everything: Annotated[bool, Query()] = False) -> list[ReviewView]:
        return desk.reviews(everything=everything)

    @app.get("/v1/reviews/{number}")
    def show(number: int, actor: Annotated[Actor, Query()]) -> ReviewDetailView:
        return desk.show(number, actor)

    @app.post("/v1/reviews/{number}/release")
    def release(number: int, word: ReleaseWord) -> ReviewView:
        return desk.release(number, word.actor)

    @app.post("/v1/reviews/{number}/withhold")
    def withhold(number: int, word: WithholdWord) -> ReviewView:
        return desk.withhold(number, word.actor, word.reason)
