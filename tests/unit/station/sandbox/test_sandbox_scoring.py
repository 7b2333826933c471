"""A container that scores: asked twice, removed whatever happens, and ended from outside also while it starts."""

import threading
from pathlib import Path
from typing import Any

import pytest

from policies.errors import UnavailableError
from station.sandbox.scoring import ScoreRequest, Scores, ScoringContainer
from station.sandbox.spec import (
    ContainerSpec,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)

SPEC = ContainerSpec(
    run_id="run-1-score", image_config_digest="sha256:" + "1" * 64, cohort_dir="/a", control_dir="/b",
    memory_bytes=1 << 28, cpus=1.0, wall_clock_s=60,
)  # fmt: skip
REQUEST = ScoreRequest(2, {"rate": 1.0}, Path("/before"), Path("/after"), Path("/nowhere"), 60.0)


class Session:
    """Answers what it was given."""

    def __init__(self, answers: list[TrainReply | TrainFailure | Exception]) -> None:
        self.answers = answers
        self.asked: list[TrainRequest] = []
        self.stopped = 0

    def exchange(self, request: TrainRequest, limits: ReplyLimits, timeout_s: float) -> Any:
        assert limits.max_arrays_bytes == 0
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def logs(self, max_bytes: int) -> str:
        return "what it printed"

    def stop(self) -> None:
        self.stopped += 1


class Containers:
    """Starts one session, once it may."""

    def __init__(self, session: Session, failure: Exception | None = None) -> None:
        self.session = session
        self.failure = failure
        self.starting = threading.Event()
        self.may_start = threading.Event()
        self.may_start.set()
        self.stops: list[str] = []

    def start(self, spec: ContainerSpec) -> Any:
        self.starting.set()
        assert self.may_start.wait(60)
        if self.failure is not None:
            raise self.failure
        return self.session

    def stop(self, run_id: str) -> None:
        self.stops.append(run_id)
        if len(self.stops) > 2:
            # As an engine does it: what is killed while it starts fails to start.
            self.failure = UnavailableError("the container is gone")
            self.may_start.set()


def scores(*values: float) -> TrainReply:
    return TrainReply({}, {}, None, 0, 0.1, values)


def test_it_is_asked_with_both_weights_and_removed() -> None:
    session = Session([scores(1.0, 2.0), scores(0.5, 2.0)])
    answer = ScoringContainer(Containers(session), SPEC).ask(REQUEST)
    assert isinstance(answer, Scores)
    assert (answer.before, answer.after) == ((1.0, 2.0), (0.5, 2.0))
    assert [(one.kind, one.round, one.arrays) for one in session.asked] == [
        ("score", 2, Path("/before")),
        ("score", 2, Path("/after")),
    ]
    assert session.stopped == 1


def test_a_failure_keeps_what_it_printed() -> None:
    failure = TrainFailure(ExitClass.OUT_OF_MEMORY, detail="it hit its memory limit")
    session = Session([scores(1.0), failure])
    container = ScoringContainer(Containers(session), SPEC)
    assert container.ask(REQUEST) == failure
    assert container.log == "what it printed"
    assert session.stopped == 1


def test_one_that_does_not_start_is_a_failure_and_an_engine_that_is_away_is_not() -> None:
    start = TrainStartError(TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1"))
    assert ScoringContainer(Containers(Session([]), start), SPEC).ask(REQUEST) == start.failure
    with pytest.raises(UnavailableError):
        ScoringContainer(Containers(Session([]), UnavailableError("away")), SPEC).ask(REQUEST)
    broken = Session([UnavailableError("away")])
    with pytest.raises(UnavailableError):
        ScoringContainer(Containers(broken), SPEC).ask(REQUEST)
    assert broken.stopped == 1


def test_it_is_ended_while_it_starts_and_whoever_ends_it_waits() -> None:
    containers = Containers(Session([scores(1.0), scores(1.0)]))
    containers.may_start.clear()
    container = ScoringContainer(containers, SPEC)
    answers: list[Scores | TrainFailure] = []
    thread = threading.Thread(target=lambda: answers.append(container.ask(REQUEST)), daemon=True)
    thread.start()
    assert containers.starting.wait(60)
    container.end()
    thread.join(60)
    assert answers == [TrainFailure(ExitClass.CRASH, detail="the station ended it")]
    assert containers.stops == ["run-1-score"] * 3


def test_one_that_was_ended_is_never_started_and_none_is_asked_twice() -> None:
    containers = Containers(Session([scores(1.0), scores(1.0)]))
    container = ScoringContainer(containers, SPEC)
    container.end()
    assert isinstance(container.ask(REQUEST), TrainFailure)
    assert not containers.starting.is_set()
    again = ScoringContainer(containers, SPEC)
    assert isinstance(again.ask(REQUEST), Scores)
    assert isinstance(again.ask(REQUEST), TrainFailure)
    again.end()
    assert containers.stops == []
