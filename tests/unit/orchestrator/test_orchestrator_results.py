import json
import logging
from pathlib import Path

import pytest
from map_documents import BY_SEX, SHARES, map_manifest

from orchestrator.logs import JsonLines
from orchestrator.results.folder import wants_result
from orchestrator.results.picture import draw_metrics
from orchestrator.results.tables import described, drawable
from policies.errors import StateError
from policies.rows import HIDDEN

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


def test_tables_are_described_and_drawn_with_what_was_hidden_left_out(tmp_path: Path) -> None:
    summed = {"lung_shares": [[12], [HIDDEN], [HIDDEN], [0]], "total": [[20, 30.0, 50.0]]}
    quantiles = {"quartiles": [[0.0, 0.25], [0.25, 0.5], [0.25, 1.0]]}
    total = {"key": "total", "column": "nodules", "measure": "sum", "decimals": 1, "split": "training"}
    quartiles = {
        "key": "quartiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
        "probabilities": [0.25, 0.5, 0.75], "split": "training",
    }  # fmt: skip
    manifest = map_manifest(aggregates=[SHARES, BY_SEX, total, quartiles])
    entry = {
        "round": 1,
        "summed_tables": {"analyse": summed},
        "tables": {"analyse": {"amstel": quantiles, "berkel": quantiles}},
    }
    assert [item.key for item in drawable(manifest, entry)] == ["lung_shares", "total", "quartiles"]
    draw_metrics([entry], "who 1.0.0", tmp_path / "with.png", manifest)
    draw_metrics([{"round": 1}], "who 1.0.0", tmp_path / "without.png", manifest)
    with_tables, without = ((tmp_path / name).read_bytes() for name in ("with.png", "without.png"))
    assert with_tables.startswith(b"\x89PNG")
    assert len(with_tables) > len(without)
    told = described(manifest)
    assert told["lung_shares"]["lines"] == ["0 to 0.25", "0.25 to 0.5", "0.5 to 1", "missing"]
    assert told["total"]["columns"] == ["patients", "sum", "sum_of_squares"]


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
