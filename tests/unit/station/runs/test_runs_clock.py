"""A policy's run hours bound all containers of an order together, whatever restarts in between."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from station_kit import StationKit, order_digest
from station_simulators import TrainEndsError, broken_disk, honest

from policies.errors import StorageError
from station.runs.clock import RunClock
from station.sandbox.spec import ExitClass, TrainFailure

HOURS = 2.0


@pytest.fixture
def kit(tmp_path: Path) -> StationKit:
    return StationKit.make(tmp_path, policy={"resources.run_hours": HOURS})


def given(kit: StationKit) -> list[int]:
    """The wall clocks that containers were started with."""
    return [session.spec.wall_clock_s for session in kit.sandbox.started]


def crash(*_: object) -> object:
    raise TrainEndsError(TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1"))


def test_a_container_that_is_started_again_gets_what_is_left(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.clock.forward(minutes=30)
    kit.policy_is_fresh()
    kit.sandbox.train = crash
    kit.message(envelope)
    # Nothing runs now, so nothing counts.
    kit.clock.forward(minutes=50)
    kit.policy_is_fresh()
    kit.sandbox.train = honest
    reply, _ = kit.message(envelope)
    assert reply.status.value == "released"
    assert given(kit) == [7200, 5400]


def test_a_station_that_starts_again_remembers_what_ran(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.clock.forward(minutes=30)
    kit.policy_is_fresh()
    # Killed: its container ran on until this start removed it.
    kit.again()
    assert kit.prepare(envelope).status.value == "accepted"
    assert given(kit) == [7200, 5400]


def test_a_host_that_went_down_counts_until_the_station_was_last_seen(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.clock.forward(minutes=10)
    kit.containers.clock.beat()
    kit.clock.forward(minutes=60)
    kit.policy_is_fresh()
    kit.boot = "another-boot"
    kit.again()
    assert kit.prepare(envelope).status.value == "accepted"
    assert given(kit) == [7200, 6600]


def test_a_run_whose_hours_are_used_up_ends_by_its_own_code(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.clock.forward(hours=HOURS)
    kit.policy_is_fresh()
    reply, _ = kit.message(envelope)
    assert (reply.status.value, reply.code) == ("refused", "RUN_TIME_SPENT")
    assert kit.state(envelope) == "failed"
    assert not kit.sandbox.running
    # Asked again, it says why again.
    assert kit.message(envelope)[0].code == "RUN_TIME_SPENT"
    assert kit.prepare(envelope).code == "RUN_TIME_SPENT"
    assert list(kit.paths.cohorts.iterdir()) == []


def test_the_message_in_which_the_hours_end_says_so(kit: StationKit) -> None:
    envelope = kit.ready()

    def too_long(*_: object) -> object:
        # As the launcher does: it kills the container at the end of its wall clock.
        kit.clock.forward(hours=HOURS)
        raise TrainEndsError(TrainFailure(ExitClass.TIMEOUT, detail="its wall clock ran out"))

    kit.sandbox.train = too_long
    reply, _ = kit.message(envelope)
    assert (reply.status.value, reply.code) == ("failed", "RUN_TIME_SPENT")
    assert kit.state(envelope) == "failed"
    assert not kit.sandbox.running


def test_a_failed_message_leaves_no_container_that_nobody_asks(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.sandbox.train = crash
    kit.message(envelope)
    assert not kit.sandbox.running
    assert kit.state(envelope) == "ready"


def test_what_was_used_only_grows(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.clock.forward(minutes=30)
    kit.decide(envelope, "hold")
    assert RunClock(kit.database).left_s(order_digest(envelope), HOURS) == 5400
    for statement in ("DELETE FROM run_clocks", "UPDATE run_clocks SET used_s = 0"):
        with pytest.raises(IntegrityError), kit.database.write() as session:
            session.execute(text(statement))


def start_and_fail(kit: StationKit, order: str) -> None:
    """A start whose audit event finds a full disk, within the same transaction."""
    with kit.database.write() as session:
        kit.containers.clock.start_in(session, order)
        session.flush()
        broken_disk()


def test_a_start_that_is_rolled_back_books_nothing(kit: StationKit) -> None:
    envelope = kit.ready()
    kit.decide(envelope, "hold")
    clock, order = kit.containers.clock, order_digest(envelope)
    with pytest.raises(StorageError):
        start_and_fail(kit, order)
    kit.clock.forward(minutes=30)
    assert clock.left_s(order, HOURS) == HOURS * 3600
    with clock.counting(order):
        kit.clock.forward(minutes=10)
    assert clock.left_s(order, HOURS) == HOURS * 3600 - 600


def test_a_start_that_is_rolled_back_ends_no_count_under_way(kit: StationKit) -> None:
    clock, order = kit.containers.clock, order_digest(kit.ready())
    kit.clock.forward(minutes=10)
    with pytest.raises(StorageError):
        start_and_fail(kit, order)
    kit.clock.forward(minutes=10)
    clock.stop(order)
    assert clock.left_s(order, HOURS) == HOURS * 3600 - 1200
