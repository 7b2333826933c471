import json
import logging
from pathlib import Path

import pytest

from orchestrator.logs import JsonLines
from orchestrator.results.folder import wants_result
from orchestrator.results.picture import draw_metrics
from policies.errors import StateError

ROUNDS = [
    {
        "round": number,
        "train": {"amstel": {"loss": 1.0 / number}, "berkel": {"loss": 2.0 / number}},
        "evaluate": {"amstel": {"auc": 0.6}, "berkel": {}},
        "means": {"train": {"loss": 1.5 / number}, "evaluate": {}},
    }
    for number in (1, 2, 3)
]


@pytest.mark.parametrize("rounds", [ROUNDS, ROUNDS[:1], []])
def test_a_picture_is_drawn_whatever_was_released(tmp_path: Path, rounds: list[dict[str, object]]) -> None:
    draw_metrics(rounds, "trivial 1.0.0", tmp_path / "metrics.png")
    assert (tmp_path / "metrics.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("state", "complete", "wanted"),
    [
        ("finished", False, True),
        ("finished", True, False),
        ("failed", False, False),
        ("running", False, False),
    ],
)
def test_only_a_finished_run_wants_a_result(tmp_path: Path, state: str, complete: bool, wanted: bool) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"state": state}))
    if complete:
        (tmp_path / "result").mkdir()
        (tmp_path / "result" / "provenance.json").write_text("{}")
    assert wants_result(tmp_path) is wanted


def test_a_damaged_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"state": "done"}')
    with pytest.raises(StateError):
        wants_result(tmp_path)


def test_a_log_line_holds_listed_fields_and_no_foreign_text() -> None:
    def line(name: str, message: str, **fields: object) -> dict[str, object]:
        record = logging.makeLogRecord({"name": name, "msg": message, "levelname": "INFO", **fields})
        found: dict[str, object] = json.loads(JsonLines().format(record))
        return found

    ours = line("orchestrator.x", "station_sync", register_version=3, path="/data/patient")
    assert (ours["event"], ours["register_version"]) == ("station_sync", 3)
    assert "path" not in ours
    assert line("httpx", "GET https://x?token=secret")["event"] == "foreign"
