"""Attack: the orchestrator asks for more than the order says: rounds beyond, stages it does not have, kinds it never named."""

from pathlib import Path

import pytest
from station_kit import StationKit

from policies.wire.instructions import Kind, Status


@pytest.mark.parametrize(
    ("kind", "round_", "code"),
    [
        (Kind.TRAIN, 3, "ORDER_ROUND"),
        (Kind.TRAIN, 100_000, "ORDER_ROUND"),
        (Kind.EVALUATE, 3, "ORDER_ROUND"),
    ],
)
def test_rounds_beyond_the_order(tmp_path: Path, kind: Kind, round_: int, code: str) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    reply, arrays = kit.message(envelope, kind, round_)
    assert (reply.status, reply.code, arrays) == (Status.REFUSED, code, None)
    assert kit.sandbox.asked == []
    kit.close()


def test_stages_that_the_order_does_not_have(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready(stages=["train"])
    assert kit.message(envelope, Kind.EVALUATE)[0].code == "ORDER_KIND"
    assert kit.message(envelope, Kind.ANALYSE, weights=None)[0].code == "ORDER_KIND"
    assert kit.sandbox.asked == []
    kit.close()


def test_the_policys_releases_are_an_end_over_all_orders(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, {"runs.releases": 5, "runs.rounds": 5, "runs.runs": 5})
    first = kit.ready()
    for round_ in (1, 2):
        assert kit.message(first, Kind.TRAIN, round_)[0].status is Status.RELEASED
        assert kit.message(first, Kind.EVALUATE, round_)[0].status is Status.RELEASED
    # One is left, and the next order wants four.
    assert kit.prepare(kit.order()).code == "BUDGET_RELEASES"
    assert kit.prepare(kit.order(rounds=1, stages=["train"])).status is Status.ACCEPTED
    kit.close()


def test_the_policys_runs_are_an_end_even_for_runs_that_were_stopped(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, {"runs.runs": 2})
    for _ in range(2):
        kit.decide(kit.ready(), "stop")
    assert kit.prepare(kit.order()).code == "BUDGET_RUNS"
    kit.close()
