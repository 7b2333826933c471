"""A board can have a train's metrics leave coarser than the train declares them, without a new manifest."""

import math
from pathlib import Path
from typing import Any

import pytest
from egress_documents import ORDER, head, manifest, policy

from orchestrator.federation.replies import Accepted, check_reply
from policies.board.comparing.documents import changes_between
from policies.rules.capacity import capacity
from policies.splits import Split
from policies.wire.instructions import Instruction, Kind
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, ReplyStamp, released_reply

AUC = {"key": "auc", "stage": "evaluate", "minimum": 0.0, "maximum": 0.988, "decimals": 9, "split": "testing"}
WHOLE = {**AUC, "type": "int", "maximum": 10}
TESTING = CohortCounts({Split.TESTING: SplitCounts(60, 60)})
NOISE = {
    "differential_privacy": {"noise_multiplier": 0.01, "epsilon": 1e7, "delta": 1e-5},
    "timing_quantum_s": 60.0,
}


def contract(decimals: int | None, metric: dict[str, Any] = AUC, **rules: Any) -> ReleaseContract:
    rules |= {"metrics": ["auc"], "metric_decimals": decimals}
    return ReleaseContract.build(
        manifest("evaluation", metrics=[metric]), policy("evaluation", **rules), None
    )


def told(value: float, made: ReleaseContract, metric: dict[str, Any] = AUC) -> float | int:
    """Return what leaves of a metric, as the orchestrator takes it too."""
    request = GuardRequest(ORDER, 1, "evaluate", None, Path("/nonexistent/out"))
    release = Guard(made, TESTING, charge=lambda _: None).check(request, head(metrics={"auc": value}), None)
    assert isinstance(release, Release), release
    asked = Instruction(kind=Kind.EVALUATE, order_digest=ORDER, round=1, deadline_s=60)
    reply = released_reply(release, ReplyStamp(1, "c", 0.0, "sha256:" + "1" * 64, "sha256:" + "2" * 64))
    rules = policy("evaluation", metrics=["auc"]).release
    assert check_reply(reply, asked, manifest("evaluation", metrics=[metric]), rules) == Accepted()
    return release.metrics["auc"]


@pytest.mark.parametrize(
    ("decimals", "leaves"), [(None, 0.123456789), (9, 0.123456789), (4, 0.1235), (2, 0.12), (0, 0.0)]
)
def test_a_metric_leaves_with_no_more_decimals_than_the_policy_has(
    decimals: int | None, leaves: float
) -> None:
    assert told(0.123456789, contract(decimals)) == leaves


def test_a_policy_never_makes_a_metric_finer_and_leaves_whole_numbers_whole() -> None:
    assert told(0.1256, contract(9, {**AUC, "decimals": 2})) == 0.13
    assert told(7, contract(0, WHOLE), WHOLE) == 7


def test_the_bound_of_its_range_stands_also_where_it_is_finer() -> None:
    assert told(0.9879, contract(1)) == 0.988


def test_noise_is_told_as_coarsely() -> None:
    made = contract(2, **NOISE)
    for _ in range(20):
        noisy = told(0.5, made)
        assert noisy == round(noisy, 2)


def test_the_bits_are_those_of_what_leaves() -> None:
    fine, coarse = contract(None), contract(2)
    assert fine.capacity_bits["evaluate"] - coarse.capacity_bits["evaluate"] > 20
    assert fine.rules_digest != coarse.rules_digest
    train = manifest("evaluation", metrics=[AUC])
    (bits,) = (
        part.bits
        for part in capacity(policy("evaluation", metrics=["auc"], metric_decimals=2), train).parts
        if part.what.startswith("metric")
    )
    assert 2**bits == pytest.approx(100)  # 0.00 to 0.98, and its upper end
    assert bits < math.log2(101)


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [(None, 3, "narrows"), (3, 2, "narrows"), (2, 4, "widens"), (4, None, "widens")],
)
def test_a_board_reads_which_way_it_was_changed(
    before: int | None, after: int | None, direction: str
) -> None:
    documents = [policy("evaluation", metrics=["auc"], metric_decimals=each) for each in (before, after)]
    (change,) = changes_between(*documents)
    assert (change.field, change.direction) == ("release.metric_decimals", direction)
