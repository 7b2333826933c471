"""Routes of labels: a mask's file first, then the rows that say whose it is. What names a patient travels in bodies."""

import hashlib
from dataclasses import asdict
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from policies.documents import Digest, Name, StrictModel, load_json
from station.intake.api.bodies import BodyError, read_body
from station.intake.clinical.labels.desk import HeldLabel, LabelsReport, too_large
from station.intake.clinical.labels.table import MAX_ROWS, LabelLine
from station.intake.intake import Intake

_MAX_ROWS_BYTES = 64 << 20
_Id = Annotated[str, Field(max_length=64)]


class LabelRequest(StrictModel):
    """One row of `labels.csv`, its file by digest."""

    line: Annotated[int, Field(ge=1)]
    file: Digest
    patient_id: Annotated[str, Field(min_length=1, max_length=64)]
    issuer: _Id = ""
    accession: _Id = ""
    series_instance_uid: _Id = ""
    names: Annotated[tuple[str, ...], Field(max_length=1000)]


class LabelsRequest(StrictModel):
    """Masks to take over, all or none."""

    collection: Name
    operator: _Id = ""
    dry_run: bool = False
    rows: Annotated[tuple[LabelRequest, ...], Field(min_length=1, max_length=MAX_ROWS)]


class HeldView(StrictModel):
    """A file that is held until its import is over."""

    file: Digest


class LabelProblemView(StrictModel):
    """What is wrong with one row."""

    line: int
    problem: str
    says: str


class LabelsView(StrictModel):
    """What an import of masks did, or would do."""

    rows: int
    handed_over: int
    unchanged: int
    problems: list[LabelProblemView]


class LabelsStatusView(StrictModel):
    """Masks handed over, and segmentations that wait, by why."""

    handed_over: int
    waiting: dict[str, int]


def label_routes(app: FastAPI, intake: Intake) -> None:
    """Add the routes to the application."""

    @app.post("/v1/labels/files")
    async def hold(request: Request) -> HeldView:
        part = intake.labels.new_part()
        digest, size = hashlib.sha256(), 0
        try:
            with part.open("xb") as file:
                async for piece in request.stream():
                    size += len(piece)
                    if too_large(size):
                        raise BodyError("a mask's file is larger than masks may be")
                    digest.update(piece)
                    await run_in_threadpool(file.write, piece)
            name = f"sha256:{digest.hexdigest()}"
            intake.labels.hold(part, name)
        finally:
            part.unlink(missing_ok=True)
        return HeldView(file=name)

    @app.post("/v1/labels")
    async def take(request: Request) -> LabelsView:
        data = await read_body(request, _MAX_ROWS_BYTES)
        asked = load_json(LabelsRequest, data, what="labels", max_bytes=_MAX_ROWS_BYTES)
        held = [HeldLabel(_line(row), row.file) for row in asked.rows]
        report = await run_in_threadpool(
            intake.import_masks, asked.collection, held, by=asked.operator, dry_run=asked.dry_run
        )
        return _view(report)

    @app.get("/v1/labels")
    def status() -> LabelsStatusView:
        return LabelsStatusView.model_validate(asdict(intake.labels.status()))


def _line(row: LabelRequest) -> LabelLine:
    return LabelLine(
        line=row.line,
        file="",
        patient_id=row.patient_id,
        issuer=row.issuer,
        accession=row.accession,
        series_instance_uid=row.series_instance_uid,
        names=row.names,
    )


def _view(report: LabelsReport) -> LabelsView:
    return LabelsView(
        rows=report.rows,
        handed_over=report.handed_over,
        unchanged=report.unchanged,
        problems=[
            LabelProblemView(line=found.line, problem=found.fault.value, says=found.says)
            for found in report.problems
        ],
    )
