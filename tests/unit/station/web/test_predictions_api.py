"""`pht-station predictions` against the API it asks, over a real record: counts, and nobody is named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalogue_log import NOW, patient
from local_api_kit import served_home

from policies.console import run
from policies.errors import ExitCode
from policies.policy import ConsentPurpose
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.cli import app
from station.predictions.book import NewPrediction, PredictionBook
from station.predictions.desk import PredictionsDesk, PredictionsView
from station.runs.repository import STATION_ACTOR, NewOrder, RunRepository
from station.storage import open_database
from station.web.api import create_api
from station.web.predictions_api import add_prediction_routes

ORDER = f"sha256:{'a' * 64}"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[PredictionBook]:
    database = open_database(tmp_path / "station.db")
    audit = AuditLog(database)
    new = NewOrder(ORDER, "0" * 32, b"envelope", "a-policy", 1, "requester:UMC", "health-research")
    RunRepository(database, audit, lambda: NOW).see(new)
    yield PredictionBook(database, audit)
    database.close()


def made(number: int, name: str) -> NewPrediction:
    return NewPrediction(
        order_digest=ORDER, round=2, case=f"2.25.{number}", patient=patient(number), name=name, kind="segmentation",
        policy_id="a-policy", purposes=(ConsentPurpose.RESEARCH_PARTICIPANTS,),
        sources=frozenset({(patient(number), f"2.25.{number}", f"sha256:{'b' * 64}")}),
        file=f"run-{'a' * 24}-round-2/2.25.{number}.dcm", digest=f"sha256:{'c' * 64}", size_bytes=100,
    )  # fmt: skip


def kept(book: PredictionBook) -> None:
    record = AuditRecord(event=AuditEvent.PREDICTIONS_KEPT, actor=STATION_ACTOR, object=ORDER)
    book.keep([made(1, "lungs"), made(2, "lungs"), made(3, "heart")], record, NOW)
    book.gone([1], "withdrawn", NOW)


def asked(book: PredictionBook, folder: str | None, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    nobody: Any = None
    api = create_api(nobody, "t" * 64)
    add_prediction_routes(api, PredictionsDesk(book, folder))
    with served_home(api, "t" * 64) as home:
        assert run(app, ["predictions", "--home", str(home)]) == ExitCode.OK
        said = capsys.readouterr().out
        assert run(app, ["predictions", "--home", str(home), "--json"]) == ExitCode.OK
        return said, capsys.readouterr().out


def test_what_is_kept_and_what_went_is_counted(
    book: PredictionBook, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(book)
    said, document = asked(book, "/srv/predictions", capsys)
    assert "Kept in /srv/predictions, for research only and not for diagnosis" in said.replace("\n", " ")
    view = PredictionsView.model_validate_json(json.dumps(json.loads(document)))
    assert [(row.name, row.round, row.kept, row.removed, row.size_bytes) for row in view.runs] == [
        ("heart", 2, 1, 0, 100), ("lungs", 2, 1, 1, 100),
    ]  # fmt: skip
    assert patient(1) not in said + document
    assert "2.25." not in said + document


def test_without_a_folder_it_says_that_nobody_is_asked(
    book: PredictionBook, capsys: pytest.CaptureFixture[str]
) -> None:
    said, document = asked(book, None, capsys)
    assert "No train is asked for predictions: predictions.folder is not set." in said
    assert json.loads(document) == {"folder": None, "runs": []}


def test_one_case_is_kept_once_in_a_round(book: PredictionBook) -> None:
    from sqlalchemy.exc import IntegrityError

    kept(book)
    record = AuditRecord(event=AuditEvent.PREDICTIONS_KEPT, actor=STATION_ACTOR, object=ORDER)
    with pytest.raises(IntegrityError):
        book.keep([made(2, "lungs")], record, NOW)
    assert book.written(ORDER, 2)
    assert not book.written(ORDER, 1)
