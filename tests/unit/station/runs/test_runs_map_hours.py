"""A map train's run hours pass while its containers run, in a message, and at no other time."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from board_kit import NOW
from map_documents import row
from map_runs import ORDER, analyse, map_kit
from station_kit import StationKit, order_digest

import station.runs.containers
import station.sandbox.mapping
from policies.errors import StateError, UnavailableError
from policies.refusals import RefusalCode
from policies.wire.instructions import Status

HOURS = 2.0


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    made = map_kit(tmp_path, monkeypatch, {"resources.run_hours": HOURS})

    def monotonic() -> float:
        # The session's own clock goes with the one that the test moves.
        return time.monotonic() + (made.clock() - NOW).total_seconds()

    monkeypatch.setattr(station.sandbox.mapping, "time", SimpleNamespace(monotonic=monotonic))
    made.sandbox.train = answers()
    yield made
    made.close()


def answers(once: Callable[[], object] = lambda: None) -> Any:
    """A train with a good row for everybody; `once` happens while the first patient's container runs."""
    first = iter([once])

    def train(_: object, cohort: Path) -> Any:
        assert json.loads((cohort / "datalist.json").read_bytes())
        next(first, lambda: None)()
        return row(0.3), {}, None

    return train


def left(kit: StationKit, envelope: bytes) -> float:
    return kit.containers.clock.left_s(order_digest(envelope), HOURS)


def forward(kit: StationKit, **delta: float) -> None:
    kit.clock.forward(**delta)
    kit.policy_is_fresh()


def test_hours_in_which_no_container_runs_are_not_counted(kit: StationKit) -> None:
    envelope = kit.ready(**ORDER)
    forward(kit, hours=HOURS + 1)
    reply = analyse(kit, envelope)
    assert (reply.status, reply.code) == (Status.RELEASED, None)
    assert left(kit, envelope) == HOURS * 3600


def test_a_message_counts_once_whatever_runs_side_by_side(kit: StationKit) -> None:
    envelope = kit.ready(**ORDER)
    kit.sandbox.train = answers(lambda: kit.clock.forward(seconds=100))
    assert analyse(kit, envelope, deadline_s=86_400).status is Status.RELEASED
    assert left(kit, envelope) == HOURS * 3600 - 100


def test_the_next_message_gets_what_the_ones_before_left(kit: StationKit) -> None:
    envelope = kit.ready(**ORDER)
    clock, order = kit.containers.clock, order_digest(envelope)
    with clock.counting(order):
        # Less than a patient's own time and the start of a container, of two hours.
        forward(kit, minutes=118, seconds=20)
    assert analyse(kit, envelope, deadline_s=86_400).status is Status.RELEASED
    given = [session.spec.wall_clock_s for session in kit.sandbox.started]
    assert given
    assert max(given) <= 100


def test_the_message_in_which_the_hours_end_says_so(kit: StationKit) -> None:
    envelope = kit.ready(**ORDER)
    kit.sandbox.train = answers(lambda: kit.clock.forward(hours=HOURS))
    reply = analyse(kit, envelope, deadline_s=86_400)
    assert (reply.status, reply.code) == (Status.FAILED, RefusalCode.RUN_TIME_SPENT)
    assert kit.state(envelope) == "failed"
    assert not kit.sandbox.running
    assert kit.releases.list() == []


def test_a_message_that_could_not_be_asked_leaves_no_count_running(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = kit.ready(**ORDER)

    def away(_: object) -> Any:
        raise UnavailableError("the engine does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(kit.sandbox, "start", away)
        assert analyse(kit, envelope).status is not Status.RELEASED
    forward(kit, hours=HOURS)
    assert left(kit, envelope) == HOURS * 3600
    assert analyse(kit, envelope, attempt=2).status is Status.RELEASED


def test_a_map_train_that_cannot_be_prepared_leaves_no_count_running(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = kit.order(**ORDER)

    def unreadable(*_: object) -> Any:
        raise StateError("the cohort's documents cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr(station.runs.containers, "map_session", unreadable)
        assert kit.prepare(envelope).status is not Status.ACCEPTED
    forward(kit, hours=HOURS)
    assert left(kit, envelope) == HOURS * 3600
    assert kit.prepare(envelope).status is Status.ACCEPTED
