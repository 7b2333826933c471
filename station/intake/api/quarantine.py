"""Routes of the quarantine and of merges. Addresses name a file by its id, which says nothing of what is in it."""

import base64
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from policies.documents import Sequence, StrictModel
from station.intake.api.bodies import read_body
from station.intake.merges.desk import MergeDesk
from station.intake.merges.sources import MAX_BYTES
from station.intake.quarantine import Quarantine, QuarantinedFile, Review
from station.intake.workers import Box, Described

MAX_LISTED = 1000
MAX_BOXES = 64
Word = Annotated[str, Field(min_length=1, max_length=500)]


class WaitingView(StrictModel):
    """A file that waits for a person."""

    id: str
    reason: str
    collection: str
    since: datetime | None


class QueueView(StrictModel):
    """What waits: counts by reason, and the oldest files."""

    counts: dict[str, int]
    files: list[WaitingView]


class FileView(StrictModel):
    """Technical facts of one file."""

    id: str
    reason: str
    collection: str
    since: datetime | None
    facts: Described


class ReviewRequest(StrictModel):
    """Who decides, and why."""

    operator: Word
    reason: Word


class ReleaseRequest(ReviewRequest):
    """Who releases a file, why, and what is masked before."""

    boxes: Sequence[Box] = Field(default=(), max_length=MAX_BOXES)


class PictureView(StrictModel):
    """A small picture, as a PNG in base64."""

    png: str


class DoneView(StrictModel):
    """The file is out of quarantine."""

    id: str
    outcome: str


class MergeView(StrictModel):
    """What an import of merges did, in counts."""

    told: int
    new: int
    patients: int


def quarantine_routes(app: FastAPI, quarantine: Quarantine) -> None:
    """Add the routes of the queue."""

    @app.get("/v1/quarantine")
    def queue(
        reason: Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,40}$")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    ) -> QueueView:
        files = quarantine.files(reason)
        return QueueView(counts=quarantine.counts(), files=[_waiting(file) for file in files[:limit]])

    @app.get("/v1/quarantine/{file_id}")
    def show(file_id: str) -> FileView:
        file, facts = quarantine.describe(file_id)
        return FileView(**_waiting(file).model_dump(), facts=facts)

    @app.post("/v1/quarantine/{file_id}/thumbnail")
    def thumbnail(file_id: str, request: ReviewRequest) -> PictureView:
        png = quarantine.thumbnail(file_id, Review(request.operator, request.reason))
        return PictureView(png=base64.b64encode(png).decode("ascii"))

    @app.post("/v1/quarantine/{file_id}/release")
    def release(file_id: str, request: ReleaseRequest) -> DoneView:
        quarantine.release(file_id, Review(request.operator, request.reason), tuple(request.boxes))
        return DoneView(id=file_id, outcome="released")

    @app.post("/v1/quarantine/{file_id}/discard")
    def discard(file_id: str, request: ReviewRequest) -> DoneView:
        quarantine.discard(file_id, Review(request.operator, request.reason))
        return DoneView(id=file_id, outcome="discarded")


def merge_routes(app: FastAPI, merges: MergeDesk) -> None:
    """Add the route of merges."""

    @app.post("/v1/merges")
    async def merge(request: Request) -> MergeView:
        report = await run_in_threadpool(merges.import_merges, await read_body(request, MAX_BYTES))
        return MergeView.model_validate(asdict(report))


def _waiting(file: QuarantinedFile) -> WaitingView:
    return WaitingView.model_validate(asdict(file))
