"""What a board reads of a train's metrics: that they are the train's own word."""

from typing import Any

import pytest
from admission_facts import manifest, policy

from policies.board.documents.documents_in import Train
from policies.board.reviewing.review import Review, review_policy, review_train
from policies.manifest import TrainManifest
from policies.outputs import MetricOutput
from policies.splits import Split

DIGEST = "sha256:" + "1" * 64


def declaring(**changes: Any) -> TrainManifest:
    fields = {"key": "auc", "stage": "evaluate", "minimum": 0.0, "maximum": 1.0, "split": Split.VALIDATION}
    outputs = manifest().outputs.model_copy(update={"metrics": (MetricOutput(**{**fields, **changes}),)})
    return manifest().model_copy(update={"outputs": outputs})


def reviews(train: TrainManifest, **rules: Any) -> tuple[Review, Review]:
    """Of the train alone, and of a policy that grants its metrics."""
    read = Train(train, DIGEST, (DIGEST,), ())
    granted = policy(
        {"release.metrics": ["auc"], **{f"release.{key}": value for key, value in rules.items()}}
    )
    return review_train(read), review_policy(granted, b"", DIGEST, train=read, weights=None, previous=None)


def test_a_metric_is_said_to_be_the_trains_own_word() -> None:
    for review in reviews(declaring()):
        lines = [line for section in review.sections for line in section.lines]
        (line,) = [line for line in lines if line.startswith("auc (evaluate)")]
        assert line.endswith("stated by the train: nothing at a station checks that it is not one patient's")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decimals": 4}, ""),
        ({"decimals": 5}, "leaves with 5 decimals"),
        ({"type": "int", "maximum": 100.0, "decimals": 9}, "a count that the train states"),
    ],
)
def test_many_decimals_and_whole_numbers_are_points_to_look_at(changes: dict[str, Any], said: str) -> None:
    for review in reviews(declaring(**changes)):
        points = [point for point in review.attention if point.startswith("auc (evaluate)")]
        assert len(points) == (1 if said else 0)
        assert all(said in point for point in points)


def test_what_the_policy_does_not_grant_is_no_point_of_it() -> None:
    _, granted = reviews(declaring(decimals=9), metrics=[])
    assert not [point for point in granted.attention if point.startswith("auc")]


def test_a_policy_with_fewer_decimals_says_so_and_settles_the_point() -> None:
    alone, granted = reviews(declaring(decimals=9), metric_decimals=3)
    assert [point for point in alone.attention if "9 decimals" in point]
    assert not [point for point in granted.attention if "decimals" in point]
    lines = [line for section in granted.sections for line in section.lines]
    assert "Numbers leave with 3 decimals at most." in lines
