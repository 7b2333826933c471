"""Intake's local API (FastAPI) on a Unix socket: parses, calls one use case, renders.

Every request shows the token of `run/intake.token`. Errors are problem details (`station.web.edge`); neither they nor the answers
hold anything of a patient.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

from fastapi import FastAPI

from policies.documents import Name, StrictModel
from policies.errors import NotFoundError
from station.intake.api.clinical import clinical_routes
from station.intake.api.consent import consent_routes, usage_routes
from station.intake.api.labels import label_routes
from station.intake.api.quarantine import merge_routes, quarantine_routes
from station.intake.intake import Intake
from station.intake.outcomes import BatchReport
from station.web.edge import put_behind_token


class BatchRequest(StrictModel):
    """A batch that stands in the spool, and where it belongs."""

    batch: str
    collection: Name


class BatchView(StrictModel):
    """How far a batch is, in counts."""

    batch: str
    collection: str
    files: int
    skipped: int
    done: int
    handed_over: int
    duplicates: int
    quarantined: dict[str, int]
    finished: bool


class StatusView(StrictModel):
    """What is there, in counts."""

    batches_waiting: int
    patients: int
    studies: int
    instances: int
    quarantined: dict[str, int]
    consent_sequence: int
    consent_source_date: datetime | None
    handover_sequence: int
    key_id: str
    key_version: int


def create_api(intake: Intake, token: str, work: Callable[[str], None]) -> FastAPI:
    """Build the application.

    Args:
        intake: the use cases.
        token: what a caller must show as a bearer token.
        work: takes the name of an accepted batch and has it processed soon.
    """
    app = FastAPI(title="pht-station intake", version="1", redoc_url=None)
    put_behind_token(app, token, "run/intake.token")
    _batches(app, intake, work)
    clinical_routes(app, intake)
    label_routes(app, intake)
    consent_routes(app, intake.consent)
    usage_routes(app, intake.usage)
    quarantine_routes(app, intake.quarantine)
    merge_routes(app, intake.merges)
    return app


def _batches(app: FastAPI, intake: Intake, work: Callable[[str], None]) -> None:
    @app.post("/v1/batches")
    def accept(request: BatchRequest) -> BatchView:
        report = intake.accept_batch(request.batch, request.collection)
        work(request.batch)
        return _batch_view(report)

    @app.get("/v1/batches")
    def batches() -> list[BatchView]:
        return [_batch_view(report) for report in intake.batches()]

    @app.get("/v1/batches/{batch}")
    def batch(batch: str) -> BatchView:
        report = intake.batch(batch)
        if report is None:
            raise NotFoundError("there is no such batch")
        return _batch_view(report)

    @app.get("/v1/status")
    def status() -> StatusView:
        return StatusView.model_validate(asdict(intake.status()))


def _batch_view(report: BatchReport) -> BatchView:
    return BatchView(
        batch=report.batch,
        collection=report.collection,
        files=report.files,
        skipped=report.skipped,
        done=report.done,
        handed_over=report.accepted,
        duplicates=report.duplicates,
        quarantined=report.quarantined,
        finished=report.finished_at is not None,
    )
