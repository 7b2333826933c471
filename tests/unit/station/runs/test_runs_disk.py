"""What trains write at a hospital: bounded per run, and never the last of the disk."""

import os
from functools import partial
from pathlib import Path

import pytest
from privacy_kit import noisy
from station_kit import StationKit
from station_simulators import Answered, SessionSimulator, TrainEndsError

from policies.wire.instructions import Kind
from station.runs import containers
from station.runs.places import run_id
from station.runs.train_logs import TrainLogs
from station.sandbox.spec import MIB, ExitClass, ReplyLimits, TrainFailure, TrainReply, TrainRequest
from station.settings import CeilingSettings


def test_every_answer_is_taken_under_the_hospitals_reserve(tmp_path: Path) -> None:
    ceilings = CeilingSettings(memory_mib=1024, cpus=2.0, runs_at_once=2, keep_free_mib=77)
    kit = StationKit.make(tmp_path, ceilings=ceilings)
    asked: list[ReplyLimits] = []
    exchange = SessionSimulator.exchange

    def noted(
        self: SessionSimulator, request: TrainRequest, limits: ReplyLimits, timeout_s: float
    ) -> TrainReply | TrainFailure:
        asked.append(limits)
        return exchange(self, request, limits, timeout_s)

    SessionSimulator.exchange = noted  # type: ignore[method-assign]
    try:
        envelope = kit.ready()
        assert kit.message(envelope)[0].status.value == "released"
    finally:
        SessionSimulator.exchange = exchange  # type: ignore[method-assign]
    assert [limits.keep_free_bytes for limits in asked] == [77 * MIB]


@pytest.mark.parametrize(("policy", "code"), [({}, "STATION_STORAGE"), (noisy(60), "TRAIN_FAILED")])
def test_an_answer_that_found_no_room_counts_as_the_train_s_failure(
    tmp_path: Path, policy: dict[str, object], code: str
) -> None:
    kit = StationKit.make(tmp_path, policy)
    envelope = kit.ready()

    def fills(request: TrainRequest, cohort: Path) -> Answered:
        raise TrainEndsError(TrainFailure(ExitClass.NO_ROOM))

    kit.sandbox.train = fills
    for _ in range(3):
        reply, _ = kit.message(envelope)
        assert (reply.status.value, reply.code) == ("failed", code)
    run = kit.runs.list()[0]
    assert (run.failures, run.state.value) == (3, "failed")
    kit.close()


def test_rounds_leave_nothing_behind_but_what_the_next_may_ask_for(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path)
    envelope = kit.ready()
    sizes = []
    for kind in (Kind.TRAIN, Kind.EVALUATE):
        assert kit.message(envelope, kind)[0].status.value == "released"
        found = [path for path in kit.paths.work.rglob("*") if path.is_file()]
        sizes.append(sum(path.stat().st_size for path in found))
        assert not [path for path in found if path.name.startswith("reply")]
    assert sizes[0] >= sizes[1] > 0
    logs = list(kit.paths.train_logs.iterdir())
    kit.decide(envelope, "stop")
    assert list(kit.paths.work.iterdir()) == []
    # One file per order, the end of what its last container printed.
    assert len(list(kit.paths.train_logs.iterdir())) == len(logs) + 1
    assert (kit.paths.train_logs / f"{run_id(kit.runs.list()[0])}.log").stat().st_size <= 64 * 1024


def test_logs_of_the_newest_orders_are_kept_and_each_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "TrainLogs", partial(TrainLogs, kept=2))
    kit = StationKit.make(tmp_path)
    for number in range(3):
        old = kit.paths.train_logs / f"run-{number}.log"
        old.write_text("old")
        os.utime(old, (number, number))
    envelope = kit.ready()
    # What is not UTF-8 arrives as characters of three bytes each.
    monkeypatch.setattr(SessionSimulator, "logs", lambda *_: "\ufffd" * 64 * 1024)
    kit.decide(envelope, "stop")
    left = {path.name: path.stat().st_size for path in kit.paths.train_logs.iterdir()}
    assert sorted(left.values()) == [3, 64 * 1024]
    assert "run-2.log" in left
