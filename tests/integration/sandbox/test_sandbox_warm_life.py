"""A warm train from round to round: what kills it in the middle of one costs that round, and the next start has it anew."""

from collections.abc import Iterator
from typing import Any

import pytest
from station_kit import StationKit
from warm_kit import EXITS, HONEST, OUT_OF_MEMORY, SILENT, RealSandbox, warm_station

from policies.wire.instructions import Kind
from station.runs.states import RunState

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationKit]:
    with warm_station(tmp_path_factory.mktemp("warm"), {"runs.runs": 10, "runs.releases": 100}) as made:
        yield made


@pytest.fixture(autouse=True)
def alone(kit: StationKit) -> Iterator[None]:
    """Each test has the station for itself."""
    sandbox(kit).started.clear()
    yield
    for run in kit.runs.list([RunState.PREPARING, RunState.READY]):
        kit.decide(run.envelope, "stop")
    assert running(kit) == []


def sandbox(kit: StationKit) -> RealSandbox:
    found: Any = kit.sandbox
    return found  # type: ignore[no-any-return]


def train(kit: StationKit, envelope: bytes, round_: int, **changes: Any) -> tuple[str, str | None]:
    reply, _ = kit.message(envelope, Kind.TRAIN, round_, **changes)
    return reply.status.value, reply.code


def running(kit: StationKit) -> list[str]:
    launcher: Any = kit.launcher
    return [status.run_id for status in launcher.list_runs()]


@pytest.mark.parametrize(
    ("rate", "deadline_s", "code"),
    [
        (OUT_OF_MEMORY, 300, "TRAIN_OUT_OF_MEMORY"),
        (SILENT, 3, "TRAIN_TIMEOUT"),
        (EXITS, 300, "TRAIN_CRASHED"),
    ],
)
def test_a_round_that_killed_the_train_works_when_it_is_asked_again(
    kit: StationKit, rate: float, deadline_s: int, code: str
) -> None:
    envelope = kit.ready(hyperparameters={"rate": rate})
    changes = {"config": {"rate": rate}}
    assert train(kit, envelope, 1, **changes) == ("released", None)
    assert len(running(kit)) == 1
    assert train(kit, envelope, 2, deadline_s=deadline_s, **changes) == ("failed", code)
    # It is not left to go on until somebody asks again.
    assert running(kit) == []
    assert list(kit.paths.control.iterdir()) == []
    assert train(kit, envelope, 2, attempt=2, **changes) == ("released", None)
    assert [session.alive for session in sandbox(kit).started] == [False, True]


def test_a_station_that_is_killed_finds_no_container_of_its_earlier_life(kit: StationKit) -> None:
    envelope = kit.ready(hyperparameters={"rate": HONEST})
    assert train(kit, envelope, 1) == ("released", None)
    (left,) = running(kit)
    assert (kit.paths.control / left).is_dir()
    kit.again()
    # As the kernel does with the files of a process that was killed.
    sandbox(kit).started[0]._connection.close()
    assert running(kit) == []
    assert list(kit.paths.control.iterdir()) == []
    assert list(kit.paths.work.iterdir()) == []
    assert kit.prepare(envelope).status.value == "accepted"
    assert train(kit, envelope, 2) == ("released", None)
