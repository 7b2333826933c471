"""The guard on metrics and tables, on counts, and on policies it cannot enforce."""

from pathlib import Path
from typing import Any

import pytest
from egress_documents import COUNTS, METRIC, ORDER, Bench, head, manifest, policy
from roster_kit import roster

from policies.refusals import RefusalCode
from policies.splits import Split
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts, rounded_examples
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, ReplyStamp, Suppressed, Withheld, released_reply

SCORED: dict[str, Any] = {
    "rows": {
        "columns": [
            {"name": "score", "type": "float", "minimum": 0.0, "maximum": 1.0},
            {"name": "label", "type": "category", "categories": ["negative", "positive"]},
        ]
    },
    "aggregates": [
        {"key": "histogram", "column": "score", "edges": [0.3, 0.6], "by": "label", "split": "testing",
         "minimum_cell_count": 5},
    ],
}  # fmt: skip
# 60 patients: of each class ten per bin.
ROWS = {"score": [0.1, 0.4, 0.9] * 20, "label": ["negative", "positive"] * 30}
AUC = {"key": "auc", "stage": "evaluate", "minimum": 0.0, "maximum": 1.0, "decimals": 2, "split": "testing"}
TESTING = CohortCounts({Split.TESTING: SplitCounts(60, 60)})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def codes(outcome: Release | Withheld) -> list[RefusalCode]:
    assert isinstance(outcome, Withheld), outcome
    return [reason.code for reason in outcome.reasons]


def judge(
    metrics: Any = None,
    rows: Any = None,
    *,
    counts: CohortCounts = TESTING,
    declared: dict[str, Any] | None = None,
    release: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
) -> Release | Withheld:
    """Put an evaluation's reply to a guard."""
    outputs = {"metrics": [AUC], **SCORED, **(declared or {})}
    rules = {"metrics": ["auc"], "tables": ["histogram"], **(release or {})}
    contract = ReleaseContract.build(
        manifest("evaluation", **outputs), policy("evaluation", data=data, **rules), None
    )
    reply = head(metrics={"auc": 0.5} if metrics is None else metrics, rows=ROWS if rows is None else rows)
    request = GuardRequest(ORDER, 1, "evaluate", None, Path("/nonexistent/out"))
    return Guard(contract, counts, roster(testing=60)).check(request, reply, None)


def test_declared_and_permitted_figures_leave_rounded() -> None:
    outcome = judge({"auc": 0.87654})
    assert isinstance(outcome, Release)
    assert outcome.metrics == {"auc": 0.88}
    assert outcome.tables == {"histogram": ((10, 10), (10, 10), (10, 10))}
    assert outcome.suppressed == ()
    assert outcome.num_examples == 60
    assert outcome.arrays is None


@pytest.mark.parametrize(
    "value", [-0.001, 1.001, 10**400, -(10**400), True, None, "0.5", [0.5], {}, float("nan"), float("inf")]
)
def test_a_metric_that_is_no_number_of_its_range_withholds(value: Any) -> None:
    assert codes(judge({"auc": value})) == [RefusalCode.RELEASE_METRIC_RANGE]


@pytest.mark.parametrize(
    ("value", "leaves"), [(0, 0.0), (1, 1.0), (-0.0, 0.0), (0.999, 1.0), (0.005, 0.01), (0.004, 0.0)]
)
def test_rounding(value: float, leaves: float) -> None:
    outcome = judge({"auc": value})
    assert isinstance(outcome, Release)
    assert outcome.metrics["auc"] == leaves
    assert str(outcome.metrics["auc"]) == str(leaves)


def test_rounding_does_not_step_over_a_bound() -> None:
    outcome = judge({"auc": 0.9876}, declared={"metrics": [{**AUC, "maximum": 0.988}]})
    assert isinstance(outcome, Release)
    assert outcome.metrics["auc"] == 0.988


def test_whole_number_metrics_take_whole_numbers_only() -> None:
    declared = {"metrics": [{**AUC, "type": "int", "maximum": 10}]}
    outcome = judge({"auc": 7}, declared=declared)
    assert isinstance(outcome, Release)
    assert outcome.metrics == {"auc": 7}
    assert codes(judge({"auc": 7.0}, declared=declared)) == [RefusalCode.RELEASE_METRIC_RANGE]


@pytest.mark.parametrize("extra", ["secret", "num-examples", "loss", "A B", ""])
def test_an_undeclared_metric_withholds_everything(extra: str) -> None:
    assert codes(judge({"auc": 0.5, extra: 1.0})) == [RefusalCode.RELEASE_METRIC_EXTRA]


def test_the_screen_never_shows_what_has_not_the_form_of_a_name() -> None:
    outcome = judge({"auc": 0.5, "Patient Jansen": 1.0, "secret": 2.0})
    assert isinstance(outcome, Withheld)
    assert outcome.reasons[0].detail == "secret and 1 more"


def test_a_missing_metric_withholds_unless_it_is_optional() -> None:
    assert codes(judge({})) == [RefusalCode.RELEASE_METRIC_MISSING]
    outcome = judge({}, declared={"metrics": [{**AUC, "required": False}]})
    assert isinstance(outcome, Release)
    assert outcome.metrics == {}


def test_what_the_policy_does_not_permit_is_left_out_whatever_it_is() -> None:
    outcome = judge({"auc": "anything"}, release={"metrics": [], "tables": []})
    assert isinstance(outcome, Release)
    assert (outcome.metrics, outcome.tables) == ({}, {})
    assert set(outcome.suppressed) == {
        Suppressed("auc", RefusalCode.RELEASE_NOT_PERMITTED),
        Suppressed("histogram", RefusalCode.RELEASE_NOT_PERMITTED),
    }


def test_a_metric_permitted_by_name_does_not_permit_a_table_of_that_name() -> None:
    outcome = judge({"auc": 0.5}, release={"metrics": ["auc", "histogram"], "tables": []})
    assert isinstance(outcome, Release)
    assert outcome.tables == {}


def test_metrics_and_tables_on_too_few_patients_are_left_out() -> None:
    few = CohortCounts({Split.TESTING: SplitCounts(9, 90), Split.TRAINING: SplitCounts(90, 90)})
    outcome = judge(counts=few, release={"minimum_patients_per_metric": 61})
    assert isinstance(outcome, Release)
    assert (outcome.metrics, outcome.tables) == ({}, {})
    assert {item.code for item in outcome.suppressed} == {RefusalCode.RELEASE_TOO_FEW_PATIENTS}


def test_every_reason_is_named() -> None:
    found = codes(judge({"x": 1}, {"y": []}))
    assert found == [
        RefusalCode.RELEASE_METRIC_EXTRA,
        RefusalCode.RELEASE_METRIC_MISSING,
        RefusalCode.RELEASE_ROWS_SHAPE,
    ]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        "reply",
        head(note="hello"),
        head(error="TRAIN_CRASHED"),
        head(error=""),
        head(type="hello"),
        head(metrics=None),
        head(tables={}),
        head(tables=[]),
        {1: 2},
    ],
)
def test_what_does_not_parse_does_not_pass(bench: Bench, reply: Any) -> None:
    assert codes(bench.guard().check(bench.request(), reply, bench.answer())) == [
        RefusalCode.RELEASE_UNPARSEABLE
    ]


def test_a_cohort_below_the_policys_minimum_releases_nothing() -> None:
    small = CohortCounts({Split.TESTING: SplitCounts(49, 400)})
    assert codes(judge(counts=small)) == [RefusalCode.RELEASE_TOO_FEW_PATIENTS]


def test_a_stage_without_images_releases_nothing(bench: Bench) -> None:
    counts = CohortCounts({Split.VALIDATION: SplitCounts(80, 80)})
    outcome = bench.guard(counts=counts).check(bench.request(), head(), bench.answer())
    assert codes(outcome) == [RefusalCode.RELEASE_TOO_FEW_PATIENTS]


@pytest.mark.parametrize("stage", ["analyse", "prepare", "", None, "train "])
def test_a_stage_that_is_not_of_the_kind_releases_nothing(bench: Bench, stage: Any) -> None:
    assert codes(bench.guard().check(bench.request(stage), head(), bench.answer())) == [
        RefusalCode.ORDER_KIND
    ]


def test_evaluation_returns_no_arrays(bench: Bench) -> None:
    outputs = {"metrics": [METRIC, {**AUC, "split": "validation"}]}
    guard = bench.guard(manifest(**outputs), policy(metrics=["loss", "auc"]))
    reply = head(metrics={"auc": 0.7})
    assert codes(guard.check(bench.request("evaluate"), reply, bench.answer())) == [
        RefusalCode.RELEASE_TENSOR_EXTRA
    ]
    outcome = guard.check(bench.request("evaluate"), reply, None)
    assert isinstance(outcome, Release)
    assert outcome.metrics == {"auc": 0.7}
    assert outcome.num_examples == 20


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ({"secure_aggregation": True}, RefusalCode.SECURE_AGGREGATION_UNSUPPORTED),
    ],
)
def test_rules_the_station_cannot_enforce_release_nothing(
    bench: Bench, rules: dict[str, Any], code: RefusalCode
) -> None:
    assert codes(bench.guard(rules=policy(**rules)).check(bench.request(), head(), bench.answer())) == [code]


def test_a_policy_for_another_kind_releases_nothing(bench: Bench) -> None:
    guard = bench.guard(rules=policy("evaluation"))
    assert codes(guard.check(bench.request(), head(), bench.answer())) == [RefusalCode.RELEASE_NOT_PERMITTED]


def test_the_stations_counts_come_from_the_frozen_cohort() -> None:
    counts = CohortCounts.from_cohort(
        {Split.TRAINING: frozenset({"a", "b"}), Split.TESTING: frozenset()}, {Split.TRAINING: 5}
    )
    assert counts.of(Split.TRAINING) == SplitCounts(2, 5)
    assert counts.of(Split.TESTING) == counts.of(Split.VALIDATION) == SplitCounts(0, 0)
    assert counts.patients == 2
    assert counts.of(Split.TRAINING).images_per_patient == 4
    assert COUNTS.patients == 90
    assert rounded_examples(0) == 10


def test_a_release_becomes_a_reply_that_fits_the_wire() -> None:
    outcome = judge({"auc": 0.8})
    assert isinstance(outcome, Release)
    reply = released_reply(outcome, ReplyStamp(2, "abc", 1.5, None, None))
    assert reply.metrics == {"auc": 0.8}
    assert reply.tables == {"histogram": [[10, 10], [10, 10], [10, 10]]}
    assert (reply.attempt, reply.num_examples, reply.release) == (2, 60, None)
