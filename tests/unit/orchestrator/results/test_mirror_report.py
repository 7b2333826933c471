"""A hospital's mirror report: its own values, what may be told of all, and nothing by which it learns another's."""

import json
from typing import Any

import pytest
from result_documents import accepted_order, round_entry

from orchestrator.federation.orders import RunProgress, RunState
from orchestrator.results.mirror import mirror_report
from policies.errors import WireError
from policies.mirror_page import report_page
from policies.mirror_report import MirrorReport, read_report
from policies.withheld import TOO_FEW

FIVE = {"amstel": 0.61, "berkel": 0.68, "dommel": 0.7412, "eem": 0.83, "ijssel": 0.7035}
EXAMPLES = {"amstel": 50, "berkel": 120, "dommel": 70, "eem": 90, "ijssel": 60}
DONE = RunProgress(state=RunState.FINISHED, round=2, rounds=2)


def report_of(station: str, rounds: list[dict[str, Any]], **order: Any) -> MirrorReport:
    accepted = accepted_order(stations=tuple(FIVE), **order)
    return mirror_report(accepted, DONE, rounds, station)


def test_a_report_has_the_hospitals_own_values_and_no_single_one_of_others_but_without_a_name() -> None:
    rounds = [
        round_entry(1, {name: value - 0.1 for name, value in FIVE.items()}, EXAMPLES),
        round_entry(2, FIVE, EXAMPLES),
    ]
    report = report_of("dommel", rounds)
    auc = next(value for value in report.values if value.metric == "auc")
    assert (auc.round, auc.own, auc.hospitals, auc.others) == (2, 0.7412, 5, 4)
    mean = sum(FIVE[name] * EXAMPLES[name] for name in FIVE) / sum(EXAMPLES.values())
    assert auc.pooled == round(mean, 4)
    assert (auc.lowest, auc.median, auc.highest) == (0.61, round((0.68 + 0.7035) / 2, 4), 0.83)
    assert [(point.round, point.own) for point in auc.course] == [(1, pytest.approx(0.6412)), (2, 0.7412)]
    text = report.model_dump_json()
    assert not [name for name in FIVE if name != "dommel" and name in text]
    # Neither the middle ones of four others, nor how many examples anybody has.
    assert not [
        number for number in ("0.68", "0.7035", *map(str, EXAMPLES.values())) if f":{number}," in text
    ]


@pytest.mark.parametrize("station_results", [True, False])
def test_of_two_hospitals_neither_learns_the_others_value(station_results: bool) -> None:
    two = {name: FIVE[name] for name in ("amstel", "berkel")}
    report = report_of("amstel", [round_entry(1, two, EXAMPLES)], station_results=station_results)
    for value in report.values:
        assert (value.pooled, value.lowest, value.highest, value.code) == (None, None, None, TOO_FEW)
    assert "0.68" not in report.model_dump_json()


def test_of_three_hospitals_each_learns_the_mean_and_no_spread() -> None:
    three = {name: FIVE[name] for name in ("amstel", "berkel", "dommel")}
    auc = report_of("amstel", [round_entry(1, three, EXAMPLES)]).values[-1]
    assert auc.pooled is not None
    assert (auc.others, auc.lowest, auc.median, auc.highest) == (0, None, None, None)


def test_who_did_not_answer_in_a_round_learns_nothing_of_it() -> None:
    without = {name: value for name, value in FIVE.items() if name != "amstel"}
    rounds = [round_entry(1, FIVE, EXAMPLES), round_entry(2, without, EXAMPLES, {"amstel": "LATE"})]
    auc = report_of("amstel", rounds).values[-1]
    assert auc.round == 1
    assert [point.round for point in auc.course] == [1]
    assert report_of("amstel", rounds[1:]).values == []


def test_the_same_question_asked_again_of_others_tells_no_difference() -> None:
    without = {name: value for name, value in FIVE.items() if name != "eem"}
    rounds = [round_entry(1, FIVE, EXAMPLES), round_entry(2, without, EXAMPLES)]
    auc = next(
        value for value in report_of("amstel", rounds, stages=("evaluate",)).values if value.metric == "auc"
    )
    assert auc.round == 1
    assert [point.pooled is None for point in auc.course] == [False, True]


def test_a_page_is_text_whatever_the_documents_say() -> None:
    evil = "<script>alert(1)</script><img src=//x onerror=y> \u202eevil"
    report = report_of("dommel", [round_entry(1, FIVE, EXAMPLES)]).model_copy(
        update={
            "train": evil,
            "train_title": evil,
            "policy_title": evil,
            "summary_en": evil,
            "summary_nl": evil,
        }
    )
    for language in ("nl", "en"):
        page = report_page(report, language)  # type: ignore[arg-type]
        assert "<script" not in page
        assert "<img" not in page
        assert "\u202e" not in page
        assert "&lt;script&gt;" in page
        assert "default-src 'none'" in page
        assert not [
            word
            for word in ("http://", "https://", "src=", "href=", "url(")
            if word in page.replace("src=//x", "")
        ]
        assert "0.7412" in page


def test_in_dutch_and_in_english() -> None:
    report = report_of("dommel", [round_entry(1, FIVE, EXAMPLES), round_entry(2, FIVE, EXAMPLES)])
    assert "Dit ziekenhuis" in report_page(report, "nl")
    assert "Laagste van 4 andere" in report_page(report, "nl")
    assert "All 5 hospitals together" in report_page(report, "en")
    alone = report_of("dommel", [round_entry(1, {"dommel": 0.7}, EXAMPLES)])
    assert "fewer than 3 hospitals released it" in report_page(alone, "en")
    assert "minder dan 3 ziekenhuizen" in report_page(alone, "nl")
    assert "No number" in report_page(report_of("eem", [round_entry(1, {"dommel": 0.7}, EXAMPLES)]), "en")


def test_what_comes_from_the_orchestrator_is_read_strictly_and_may_have_grown() -> None:
    report = report_of("dommel", [round_entry(1, FIVE, EXAMPLES)])
    document = json.loads(report.model_dump_json())
    assert read_report(json.dumps(document | {"new": {"x": 1}}).encode()) == report
    for change in (
        {"station": "../x"},
        {"values": "x"},
        {"state": "running"},
        {"values": [document["values"][0] | {"metric": "<b>"}]},
    ):
        with pytest.raises(WireError):
            read_report(json.dumps(document | change).encode())
    with pytest.raises(WireError):
        read_report(b"{" * 100)
