"""Routes about the hospital's PACS: parses, calls the desk, renders. Answers are counts, codes and names of the settings."""

from dataclasses import asdict
from datetime import date
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from policies.documents import Name, Sequence, StrictModel
from policies.errors import NotFoundError, UsageError
from station.handover import Day
from station.intake.api.bodies import read_body
from station.intake.sources.desk import DEFAULT_MODALITIES, PacsDesk
from station.intake.sources.journal import JobReport
from station.intake.sources.pacs_worker import Reconciled
from station.intake.sources.queries import StudyCriteria

ModalityCode = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]


class CriteriaRequest(StrictModel):
    """Which studies are meant."""

    first: Day
    last: Day
    modalities: Sequence[ModalityCode] = DEFAULT_MODALITIES
    body_part: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{0,16}$")] = ""

    def criteria(self) -> StudyCriteria:
        """Return them checked.

        Raises:
            UsageError: a day does not exist, or the period ends before it begins.
        """
        try:
            days = date.fromisoformat(self.first), date.fromisoformat(self.last)
        except ValueError:
            raise UsageError("a date of the period does not exist") from None
        return StudyCriteria(*days, tuple(self.modalities), self.body_part)


class RetrievalRequest(StrictModel):
    """Studies to retrieve into a collection."""

    collection: Name
    criteria: CriteriaRequest


class ReconcileRequest(StrictModel):
    """A collection to compare; `confirmed` is how many instances the operator was told are gone."""

    collection: Name
    confirmed: Annotated[int, Field(ge=1)] | None = None


class PacsStatusView(StrictModel):
    """One PACS."""

    name: str
    method: str
    open_now: bool
    waiting: int


class ReachView(StrictModel):
    """A PACS that answered."""

    pacs: str
    answers: bool


class FoundView(StrictModel):
    """How many studies a PACS has."""

    pacs: str
    studies: int


class RetrievalView(StrictModel):
    """How far a retrieval is, in counts and reasons."""

    job: str
    pacs: str
    collection: str
    state: str
    reason: str
    items: dict[str, int]
    reasons: dict[str, int]
    expected: int
    received: int


class ReconcileView(StrictModel):
    """How far a comparison is, in counts."""

    pacs: str
    collection: str
    state: str
    reason: str
    studies: int
    unasked: int
    unclear: int
    instances: int
    studies_gone: int
    gone: int
    removed: int


def pacs_routes(app: FastAPI, desk: PacsDesk) -> None:
    """Add the routes to intake's API."""
    _asking(app, desk)
    _retrievals(app, desk)

    @app.post("/v1/pacs/{name}/reconcile")
    def reconcile(name: str, request: ReconcileRequest) -> ReconcileView:
        return _reconcile_view(desk.reconcile(name, request.collection, request.confirmed))

    @app.get("/v1/pacs/{name}/reconcile")
    def reconciled(name: str) -> ReconcileView:
        latest = desk.reconciled(name)
        if latest is None:
            raise NotFoundError("nothing was compared with this PACS since the start")
        return _reconcile_view(latest)


def _asking(app: FastAPI, desk: PacsDesk) -> None:
    @app.get("/v1/pacs")
    def pacs() -> list[PacsStatusView]:
        return [PacsStatusView.model_validate(asdict(one)) for one in desk.pacs()]

    @app.post("/v1/pacs/{name}/echo")
    def echo(name: str) -> ReachView:
        desk.echo(name)
        return ReachView(pacs=name, answers=True)

    @app.post("/v1/pacs/{name}/query")
    def query(name: str, request: CriteriaRequest) -> FoundView:
        return FoundView(pacs=name, studies=desk.query(name, request.criteria()))


def _retrievals(app: FastAPI, desk: PacsDesk) -> None:
    @app.post("/v1/pacs/{name}/accessions")
    async def accessions(
        request: Request,
        name: str,
        collection: Annotated[Name, Query()],
        modality: Annotated[list[ModalityCode] | None, Query()] = None,
    ) -> RetrievalView:
        data = await read_body(request)
        wanted = tuple(modality) if modality else DEFAULT_MODALITIES
        return _view(await run_in_threadpool(desk.retrieve_accessions, name, collection, data, wanted))

    @app.post("/v1/pacs/{name}/studies")
    def studies(name: str, request: RetrievalRequest) -> RetrievalView:
        return _view(desk.retrieve_studies(name, request.collection, request.criteria.criteria()))

    @app.get("/v1/retrievals")
    def retrievals() -> list[RetrievalView]:
        return [_view(report) for report in desk.retrievals()]

    @app.get("/v1/retrievals/{job}")
    def retrieval(job: str) -> RetrievalView:
        return _view(desk.retrieval(job))

    @app.post("/v1/retrievals/{job}/resume")
    def resume(job: str) -> RetrievalView:
        return _view(desk.resume(job))

    @app.post("/v1/retrievals/{job}/cancel")
    def cancel(job: str) -> RetrievalView:
        return _view(desk.cancel(job))


def _view(report: JobReport) -> RetrievalView:
    return RetrievalView.model_validate({**asdict(report), "state": report.state.value})


def _reconcile_view(reconciled: Reconciled) -> ReconcileView:
    return ReconcileView.model_validate({**asdict(reconciled), "state": reconciled.state.value})
