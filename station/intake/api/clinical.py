"""Routes of clinical data. What names a patient travels in bodies, never in an address."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from policies.documents import MAX_DOCUMENT_BYTES, Digest, Name, StrictModel
from policies.profiles import DEFAULT_PROFILE, ClinicalValue, ProfileId
from station.intake.api.bodies import read_body
from station.intake.clinical.desk import ImportOrder
from station.intake.clinical.report import ValidationReport
from station.intake.intake import Intake

Operator = Annotated[str, Field(max_length=64)]


class FieldView(StrictModel):
    """How one field fared, in counts."""

    field: str
    present: int
    missing: int
    wrong: dict[str, int]


class ProblemView(StrictModel):
    """One wrong cell, without what stands in it."""

    line: int
    column: str | None
    problem: str
    says: str


class ValidationView(StrictModel):
    """What was found in an export."""

    rows: int
    accepted: int
    refused: int
    skipped: int
    wrong_cells: int
    fields: list[FieldView]
    problems: list[ProblemView]


class ClinicalView(StrictModel):
    """What a clinical import did, in counts."""

    rows: int
    refused: int
    skipped: int
    added: int
    corrected: int
    emptied: int
    unchanged: int
    linked: int
    handed_over: int
    validation: ValidationView


class MappingView(StrictModel):
    """A mapping that intake knows."""

    digest: Digest
    name: str
    source: str
    profile: str


class HistoryRequest(StrictModel):
    """Whose history, by the hospital's own id, and who asks."""

    patient_id: Annotated[str, Field(min_length=1, max_length=64)]
    issuer: Annotated[str, Field(max_length=64)] | None = None
    operator: Annotated[str, Field(min_length=1, max_length=64)]


class ChangeView(StrictModel):
    """What an import said anew of one field."""

    field: str
    before: ClinicalValue
    after: ClinicalValue


class VersionView(StrictModel):
    """One version of a row."""

    version: int
    imported_at: datetime
    imported_by: str
    import_id: int
    mapping: str
    source_digest: str
    changes: tuple[ChangeView, ...]


class RowHistoryView(StrictModel):
    """One row of one patient."""

    collection: str
    profile: str
    issuer: str
    link: str
    accession: str
    day: str
    versions: tuple[VersionView, ...]


def clinical_routes(app: FastAPI, intake: Intake) -> None:
    """Add the routes to the application."""

    @app.post("/v1/clinical")
    async def clinical(
        request: Request,
        collection: Annotated[Name, Query()],
        profile: Annotated[ProfileId, Query()] = DEFAULT_PROFILE,
        mapping: Annotated[Digest | None, Query()] = None,
        skip_wrong_rows: Annotated[bool, Query()] = False,
        complete: Annotated[bool, Query()] = False,
        operator: Annotated[Operator, Query()] = "",
    ) -> ClinicalView:
        data = await read_body(request)
        order = ImportOrder(profile, mapping, skip_wrong_rows, complete, operator)
        report = await run_in_threadpool(intake.order_clinical, data, collection, order)
        counts = {name: value for name, value in asdict(report).items() if name != "validation"}
        return ClinicalView(**counts, validation=_validation(report.validation))

    @app.post("/v1/clinical/validation")
    async def validation(
        request: Request,
        profile: Annotated[ProfileId, Query()] = DEFAULT_PROFILE,
        mapping: Annotated[Digest | None, Query()] = None,
    ) -> ValidationView:
        data = await read_body(request)
        return _validation(
            await run_in_threadpool(intake.clinical.validate, data, ImportOrder(profile, mapping))
        )

    @app.post("/v1/clinical/mappings")
    async def add_mapping(request: Request) -> MappingView:
        data = await read_body(request, MAX_DOCUMENT_BYTES)
        return MappingView.model_validate(asdict(await run_in_threadpool(intake.clinical.add_mapping, data)))

    @app.get("/v1/clinical/mappings")
    def mappings() -> list[MappingView]:
        return [MappingView.model_validate(asdict(card)) for card in intake.clinical.mappings()]

    @app.post("/v1/clinical/history")
    def history(asked: HistoryRequest) -> list[RowHistoryView]:
        rows = intake.clinical.history(asked.patient_id, asked.issuer, by=asked.operator)
        return [RowHistoryView.model_validate(asdict(row)) for row in rows]


def _validation(report: ValidationReport) -> ValidationView:
    return ValidationView(
        rows=report.rows,
        accepted=report.accepted,
        refused=report.refused,
        skipped=report.skipped,
        wrong_cells=report.wrong_cells,
        fields=[
            FieldView(field=name, present=counts.present, missing=counts.missing, wrong=dict(counts.wrong))
            for name, counts in report.fields.items()
        ],
        problems=[
            ProblemView(line=found.line, column=found.column, problem=found.fault.value, says=found.says)
            for found in report.problems
        ],
    )
