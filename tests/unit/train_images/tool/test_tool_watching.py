"""A run's news in words, from what the orchestrator really writes and from less than that."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.documents import digest_of
from policies.errors import NetworkError
from policies.wire.registry_client import Progress, RunEvents, RunStatus
from train_images.tool.watching import (
    progress_line,
    round_lines,
    round_news,
    table_columns,
    table_rows,
    taking_part,
    why,
)
from train_images.watch_view import PlainView, TableView

ENTRY: dict[str, Any] = {
    "round": 2,
    "took_part": ["a", "b"],
    "missing": {"c": "OPERATOR_PENDING"},
    "train": {"a": {"loss": 0.5}, "b": {"loss": 0.25}},
    "evaluate": {"a": {"auc": 0.9, "loss": 0.4}, "b": {"loss": 0.2}},
    "means": {"train": {"loss": 0.375}, "evaluate": {"loss": 0.3}},
    "tables": {"evaluate": {"b": {"histogram": [[1, 2]]}}},
    "compute_s": {"train": {"a": 2.0, "b": 3.0}, "evaluate": {"a": 1.0}},
    "overhead_s": 0.25,
    "num_examples": {"a": 50, "b": 40},
}


def test_a_round_in_lines() -> None:
    assert list(round_lines(round_news(ENTRY))) == [
        "round 2: train loss mean 0.375 (a 0.5, b 0.25)",
        "round 2: evaluate auc (a 0.9, b -)",
        "round 2: evaluate loss mean 0.3 (a 0.4, b 0.2)",
        "round 2: evaluate histogram, a table of b",
        "round 2: 2 of 3 took part, not c OPERATOR_PENDING; compute 4.0 s, overhead 0.2 s",
    ]


def test_a_round_in_a_table_with_a_column_per_station() -> None:
    news = [round_news(ENTRY)]
    assert table_columns(news) == (
        "round",
        "took part",
        "released",
        "mean",
        "a",
        "b",
        "c",
        "compute s",
        "overhead s",
    )
    assert list(table_rows(news)) == [
        ("2", "2 of 3", "train loss", "0.375", "0.5", "0.25", "OPERATOR_PENDING", "4.0", "0.2"),
        ("", "", "evaluate auc", "", "0.9", "-", "OPERATOR_PENDING", "", ""),
        ("", "", "evaluate loss", "0.3", "0.4", "0.2", "OPERATOR_PENDING", "", ""),
        ("", "", "evaluate histogram (table)", "", "-", "yes", "OPERATOR_PENDING", "", ""),
    ]


POOLED: dict[str, Any] = {
    "round": 3,
    "took_part": ["a", "b", "d"],
    "missing": {"c": "LATE"},
    "train": {},
    "evaluate": {},
    "means": {"train": {"loss": 0.375}, "evaluate": {}},
    "reported": {"train": {"loss": 3}, "evaluate": {"auc": 2}},
    "withheld": {"evaluate": {"auc": "POOLED_OF_TOO_FEW"}},
    "tables": {},
    "tables_reported": {"evaluate": {"histogram": 3}},
    "compute_s": {"train": {"slowest": 3.0}},
    "overhead_s": 0.25,
}


def test_a_round_that_is_shown_pooled_only_says_how_many_and_why_not() -> None:
    news = round_news(POOLED)
    assert list(round_lines(news)) == [
        "round 3: train loss 0.375 pooled over 3 stations",
        "round 3: evaluate auc of 2 stations, not told: fewer than 3 stations released it (POOLED_OF_TOO_FEW)",
        "round 3: evaluate histogram pooled over 3 stations",
        "round 3: 3 of 4 took part, not c LATE; compute 3.0 s, overhead 0.2 s",
    ]
    assert table_columns([news]) == (
        "round",
        "took part",
        "released",
        "mean",
        "not",
        "compute s",
        "overhead s",
    )
    assert list(table_rows([news])) == [
        ("3", "3 of 4", "train loss", "0.375", "c LATE", "3.0", "0.2"),
        ("", "", "evaluate auc", "POOLED_OF_TOO_FEW", "", "", ""),
        ("", "", "evaluate histogram", "", "", "", ""),
    ]


def test_times_that_are_not_shown_are_not_told_as_none_at_all() -> None:
    news = round_news(
        {key: value for key, value in POOLED.items() if key != "overhead_s"} | {"compute_s": {}}
    )
    assert list(round_lines(news))[-1] == "round 3: 3 of 4 took part, not c LATE"
    assert next(table_rows([news]))[-2:] == ("", "")


def test_many_stations_have_no_column_each() -> None:
    names = [f"s{number}" for number in range(20)]
    many = ENTRY | {"took_part": names, "train": {name: {"loss": 0.5} for name in names}}
    assert len(table_columns([round_news(many)])) == 7


@given(st.sets(st.sampled_from(sorted(ENTRY))))
def test_what_an_orchestrator_leaves_out_is_not_shown(left_out: set[str]) -> None:
    news = round_news({key: value for key, value in ENTRY.items() if key not in left_out})
    assert list(round_lines(news))
    columns = table_columns([news])
    assert all(len(row) == len(columns) for row in table_rows([news]))


def test_where_a_run_stands() -> None:
    running = Progress(
        state="running", round=2, rounds=5, stage="train", accepted=["a"], missing={"b": "LATE"}
    )
    assert progress_line(running) == "running, round 2 of 5, train"
    assert taking_part(running) == "taking part: a; not: b LATE"
    named = running.model_copy(update={"missing": {"b": "TRAIN_CRASHED"}, "correlation": {"b": "c0ffee"}})
    assert taking_part(named) == "taking part: a; not: b TRAIN_CRASHED (its operator's c0ffee)"
    assert progress_line(Progress(state="finished", round=5, rounds=5)) == "finished"
    assert taking_part(Progress(state="queued", round=0, rounds=0)) == ""


def test_a_round_says_of_how_many_and_who_is_out_for_good() -> None:
    entry = POOLED | {
        "of": 6,
        "excluded": {"e": "RELEASE_TENSOR_EXTRA"},
        "missing": {"c": "LATE", "e": "RELEASE_TENSOR_EXTRA"},
    }
    last = list(round_lines(round_news(entry)))[-1]
    assert last.startswith(
        "round 3: 3 of 6 took part, not c LATE, e RELEASE_TENSOR_EXTRA, excluded for good e;"
    )
    running = Progress(
        state="running", round=1, rounds=2, missing={"c": "LATE"}, missing_since={"c": "2026-11-22T10:00:00Z"},
        excluded={"e": "RELEASE_TENSOR_EXTRA"}, waiting="SUPERLINK_DOWN",
    )  # fmt: skip
    assert (
        taking_part(running)
        == "not: c LATE since 2026-11-22T10:00:00Z; excluded for good: e RELEASE_TENSOR_EXTRA"
    )
    assert progress_line(running) == "running, round 1 of 2, waits (SUPERLINK_DOWN)"
    assert (
        progress_line(Progress(state="queued", round=0, rounds=2, position=3))
        == "queued, number 3 in the queue"
    )


def test_why_a_run_failed_names_every_rule_in_words() -> None:
    missing = {"a": "CONSENT_STALE", "b": "LATE"}
    status = RunStatus(
        digest=digest_of(b"x"), order_id="0", policy_id="p", policy_version=1, requester="r", accepted="",
        stations=["a", "b"], result=[],
        progress=Progress(state="failed", round=0, rounds=1, missing=missing, code="TOO_FEW_STATIONS_ACCEPTED"),
    )  # fmt: skip
    code, message, hint = why(status)
    assert code == "TOO_FEW_STATIONS_ACCEPTED"
    assert "a CONSENT_STALE, b LATE" in message
    assert hint.startswith("CONSENT_STALE: ")


def test_a_stopped_run_has_a_code_too() -> None:
    status = RunStatus(
        digest=digest_of(b"x"), order_id="0", policy_id="p", policy_version=1, requester="r", accepted="",
        stations=["a"], result=[], progress=Progress(state="stopped", round=1, rounds=2),
    )  # fmt: skip
    assert why(status)[0] == "STOPPED"


def news_of(*entries: dict[str, Any], **progress: Any) -> RunEvents:
    return RunEvents(events=list(entries), next=len(entries), mark="m", progress=Progress(**progress))


def test_lines_say_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainView() as view:
        view.show(news_of(state="running", round=1, rounds=2, stage="train", accepted=["a"]))
        view.show(news_of(state="running", round=1, rounds=2, stage="train", accepted=["a"]))
        view.show(news_of(ENTRY, state="finished", round=2, rounds=2, accepted=["a"]))
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["taking part: a", "running, round 1 of 2, train"]
    assert out[-1] == "finished"
    assert len(out) == len(set(out))


def test_silence_is_said_once_until_it_answers_again(capsys: pytest.CaptureFixture[str]) -> None:
    silent = NetworkError("the orchestrator does not answer")
    with PlainView() as view:
        for _ in range(3):
            view.silence(silent)
        view.show(news_of(state="running", round=1, rounds=2))
        view.silence(silent)
    assert capsys.readouterr().out.count("asked again") == 2
    with TableView() as table:
        table.silence(silent)
    assert "asked again" in capsys.readouterr().out


def test_the_quiet_view_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainView(quiet=True) as view:
        view.show(news_of(ENTRY, state="finished", round=2, rounds=2))
    assert capsys.readouterr().out == ""


def test_the_table_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with TableView() as view:
        view.show(news_of(state="running", round=1, rounds=2, stage="prepare"))
        view.show(news_of(ENTRY, state="finished", round=2, rounds=2))
    out = capsys.readouterr().out
    assert "finished" in out
    assert "0.375" in out
