"""`pht-station privacy` against the API it asks, over a real ledger."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_api_kit import served_home
from privacy_kit import DELTA, MULTIPLIER, Books, grant
from sqlalchemy import text

from policies.console import run
from policies.errors import ExitCode
from policies.privacy import Spent
from station.cli import app
from station.egress.privacy.spending import SpendingDesk, SpendingView
from station.egress.release import Release
from station.web.api import create_api
from station.web.privacy_api import add_privacy_routes


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    made = Books(tmp_path)
    yield made
    made.close()


@pytest.fixture
def home(books: Books) -> Iterator[Path]:
    nobody: Any = None
    api = create_api(nobody, "t" * 64)
    add_privacy_routes(api, SpendingDesk(books.records.database, 1.0, DELTA))
    with served_home(api, "t" * 64) as folder:
        yield folder


def asked(home: Path, capsys: pytest.CaptureFixture[str]) -> SpendingView:
    assert run(app, ["privacy", "--home", str(home), "--json"]) == ExitCode.OK
    return SpendingView.model_validate_json(json.dumps(json.loads(capsys.readouterr().out)))


def test_before_anything_was_drawn_nothing_is_spent(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = asked(home, capsys)
    assert (view.patients, view.most, view.policies) == (0, 0.0, [])
    assert [each.patients for each in view.spent] == [0] * 5


def test_what_was_charged_is_told_in_patients_and_epsilon(
    home: Path, books: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    release = books.answer()
    assert isinstance(release, Release)
    books.record(release)
    assert isinstance(books.answer(2), Release), "drawn, and never recorded"
    view = asked(home, capsys)
    assert (view.patients, view.most) == (90, grant(4))
    assert sum(each.patients for each in view.spent) == 90
    [policy] = view.policies
    assert (policy.policy, policy.draws, policy.released, policy.patients, policy.most) == (
        "cxr-finding", 2, 1, 90, grant(4),
    )  # fmt: skip


def test_what_was_lost_with_a_restore_counts_for_everybody(
    home: Path, books: Books, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(books.answer(), Release)
    with books.records.database.write() as session:
        session.execute(
            text("INSERT INTO counters VALUES ('privacy-lost', 'cxr-finding', :units)"),
            {"units": Spent.of(MULTIPLIER, 6).units},
        )
    view = asked(home, capsys)
    assert (view.most, view.lost) == (grant(8), grant(6))
    monkeypatch.setenv("COLUMNS", "200")
    assert run(app, ["privacy", "--home", str(home)]) == ExitCode.OK
    said = capsys.readouterr().out
    for words in ("grants each patient epsilon 1", "90 patients", "counts for everybody", "cxr-finding"):
        assert words in said
