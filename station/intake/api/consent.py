"""Routes of the consent register and of the usage list. What names a patient travels in bodies, never in an address."""

from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from policies.documents import Moment, StrictModel, load_json
from station.intake.api.bodies import read_body
from station.intake.consent.desk import ConsentDesk, RegisterFormat
from station.intake.consent.usage import UsageDesk
from station.intake.outcomes import ConsentReport
from station.usage_list import MAX_USAGE_BYTES

Id = Annotated[str, Field(min_length=1, max_length=64)]
Issuer = Annotated[str, Field(max_length=64)]


class ConsentView(StrictModel):
    """What a consent import did, in counts."""

    entries: int
    handed_over: int
    ambiguous_ids: int
    sequence: int


class AnswerView(StrictModel):
    """What holds for one purpose today, and why."""

    purpose: str
    answer: str
    ground: str
    made: date | None


class CardView(StrictModel):
    """What the register says of one patient today."""

    issuer: str
    images_here: bool
    birth_date: date | None
    deceased: date | None
    answers: list[AnswerView]


class HistoryView(StrictModel):
    """One line of the register's history."""

    imported_at: datetime
    source: str
    stated: bool
    issuer: str
    purpose: str
    decision: str
    made: str
    given_by: str
    valid_from: str | None
    valid_until: str | None


class PatientRequest(StrictModel):
    """A patient by the hospital's own id."""

    patient_id: Id
    issuer: Issuer | None = None


class PatientView(StrictModel):
    """What the register says of everybody of one id."""

    patients: list[CardView]
    history: list[HistoryView]


class RegisterView(StrictModel):
    """The register in counts."""

    sequence: int
    source_date: datetime | None
    imports: int
    decisions: int
    patients: int
    registry_apart: bool
    ambiguous_ids: int
    grounds: dict[str, int]


class UsageRequest(StrictModel):
    """A usage list, and the one patient who asks, if it is about one."""

    usage_list: str
    patient_id: Id | None = None
    issuer: Issuer | None = None


class UsageView(StrictModel):
    """Who was in which study, as CSV, and how many pseudonyms nobody here has."""

    csv: str
    lines: int
    unknown: int


def consent_routes(app: FastAPI, desk: ConsentDesk) -> None:
    """Add the routes of the register."""

    @app.post("/v1/consent")
    async def consent(
        request: Request,
        source_date: Annotated[Moment | None, Query()] = None,
        form: Annotated[RegisterFormat, Query(alias="format")] = RegisterFormat.CSV,
    ) -> ConsentView:
        data = await read_body(request)
        report = await run_in_threadpool(desk.import_register, data, form, source_date=source_date)
        return _view(report)

    @app.post("/v1/consent/patients")
    async def patients(request: Request) -> ConsentView:
        data = await read_body(request)
        return _view(await run_in_threadpool(desk.import_patients, data))

    @app.post("/v1/consent/show")
    def show(request: PatientRequest) -> PatientView:
        cards, lines = desk.show(request.patient_id, request.issuer)
        return PatientView(
            patients=[
                CardView(
                    issuer=card.issuer,
                    images_here=card.images_here,
                    birth_date=card.birth_date,
                    deceased=card.deceased,
                    answers=[
                        AnswerView(
                            purpose=purpose.value,
                            answer=answer.word,
                            ground=answer.ground.value,
                            made=answer.made,
                        )
                        for purpose, answer in card.answers.items()
                    ],
                )
                for card in cards
            ],
            history=[HistoryView.model_validate(asdict(line)) for line in lines],
        )

    @app.get("/v1/consent/status")
    def status() -> RegisterView:
        return RegisterView.model_validate(asdict(desk.status()))


def usage_routes(app: FastAPI, desk: UsageDesk) -> None:
    """Add the route that says who a usage list is about."""

    @app.post("/v1/usage/resolve")
    async def resolve(request: Request) -> UsageView:
        data = await read_body(request, 2 * MAX_USAGE_BYTES)
        wanted = load_json(UsageRequest, data, what="the request", max_bytes=2 * MAX_USAGE_BYTES)
        asking = None if wanted.patient_id is None else (wanted.issuer, wanted.patient_id)
        resolved = await run_in_threadpool(desk.resolve, wanted.usage_list.encode(), asking)
        return UsageView(csv=resolved.csv, lines=resolved.lines, unknown=resolved.unknown)


def _view(report: ConsentReport) -> ConsentView:
    return ConsentView.model_validate(asdict(report))
