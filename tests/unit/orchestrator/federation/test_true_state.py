"""What is said of an order is true now: who carries it, why it waits, and that what is damaged, stopped or expired holds up no other."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from federation_samples import NAMES, manifest, run_order
from federation_world import World
from flwr.supercore.task_identity import TaskIdentity
from grid_simulator import GridSimulator

from orchestrator.federation.orders import (
    ORDER_EXPIRED,
    SERVERAPP_STARTING,
    SUPERLINK_DOWN,
    WORKER_AWAY,
    AcceptedOrder,
    FolderQueue,
    RunFolder,
    RunProgress,
    RunState,
)
from orchestrator.federation.places import RUNS_FULL, STATIONS_FULL, Limits
from policies.policy import ReleaseRules, TensorRules


def digest_of_number(number: int) -> str:
    return f"sha256:{number:064x}"


def submit(queue: FolderQueue, number: int, requester: str = "ann", **changes: object) -> RunFolder:
    folder = queue.submit(
        AcceptedOrder(
            order_digest=digest_of_number(number),
            envelope="{}",
            order=run_order(**changes),
            manifest=manifest(),
            release=ReleaseRules(tensors=TensorRules(), maximum_bytes=1000),
            nodes={name: place + 1 for place, name in enumerate(NAMES)},
            requester=requester,
        )
    )
    os.utime(folder.path / "order.json", ns=(number * 10**9, number * 10**9))
    return folder


def taken(queue: FolderQueue, limits: Limits) -> list[str]:
    found = []
    while (order := queue.next_order(limits)) is not None:
        found.append(order.order_digest)
    return found


def test_a_tenth_order_of_one_requester_does_not_keep_anothers_first_waiting(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    for number in range(10):
        submit(queue, number)
    submit(queue, 10, "bob")
    assert taken(queue, Limits(2, 9)) == [digest_of_number(0), digest_of_number(10)]
    shown = queue.shown(digest_of_number(1))
    queue.beat()
    assert (shown.position, shown.waiting) == (1, WORKER_AWAY)
    shown = queue.shown(digest_of_number(9))
    assert (shown.position, shown.waiting) == (9, RUNS_FULL)
    queue.report(digest_of_number(10), RunProgress(state=RunState.FINISHED))
    assert taken(queue, Limits(2, 9)) == [digest_of_number(1)]


def test_an_order_says_which_station_is_full_and_an_excluded_one_frees_its_place(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    first = submit(queue, 0, stations=["amstel", "berkel"])
    submit(queue, 1, stations=["berkel", "dommel"])
    assert taken(queue, Limits(4, 1)) == [digest_of_number(0)]
    queue.beat()
    shown = queue.shown(digest_of_number(1))
    assert (shown.waiting, shown.full) == (STATIONS_FULL, ("berkel",))
    first.write_progress(RunProgress(state=RunState.RUNNING, excluded={"berkel": "RELEASE_NORM"}))
    assert taken(queue, Limits(4, 1)) == [digest_of_number(1)]
    assert queue.shown(digest_of_number(1)).position == 0


def test_a_damaged_folder_stops_nobody_elses_order(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    (submit(queue, 0).path / "order.json").write_bytes(b"{\x00")
    submit(queue, 1)
    assert taken(queue, Limits(4, 9)) == [digest_of_number(1)]
    assert not queue.may_read("amstel", "sha256:" + "0" * 64)


@pytest.mark.parametrize("data", [b"", b"{\x00", b"[]"])
def test_an_order_whose_state_is_damaged_goes_on(tmp_path: Path, data: bytes) -> None:
    queue = FolderQueue(tmp_path)
    folder = submit(queue, 0)
    folder.write_progress(RunProgress(state=RunState.RUNNING, round=1, rounds=2))
    assert taken(queue, Limits(4, 9)) == [digest_of_number(0)]
    (folder.path / "state.json").write_bytes(data)
    # It is carried: its process writes it.
    assert taken(queue, Limits(4, 9)) == []
    assert taken(FolderQueue(tmp_path), Limits(4, 9)) == [digest_of_number(0)]
    assert (folder.read_progress().state, folder.read_progress().rounds) == (RunState.QUEUED, 2)


def test_a_queued_order_is_stopped_and_goes_on_without_ever_having_run(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    folder = submit(queue, 0)
    FolderQueue(tmp_path).request_stop(digest_of_number(0))
    assert queue.next_order() is None
    assert folder.read_progress().state is RunState.STOPPED
    FolderQueue(tmp_path).resume(digest_of_number(0))
    assert folder.read_progress().state is RunState.QUEUED
    assert taken(queue, Limits(4, 9)) == [digest_of_number(0)]


def test_an_order_that_expires_in_the_queue_fails_by_that_code(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    folder = submit(queue, 0, issued="2020-01-01T00:00:00Z", expires="2020-01-02T00:00:00Z")
    assert queue.next_order() is None
    assert (folder.read_progress().state, folder.read_progress().code) == (RunState.FAILED, ORDER_EXPIRED)


def test_a_process_that_is_gone_is_not_taken_for_one_that_runs(tmp_path: Path) -> None:
    queue, now = FolderQueue(tmp_path), datetime.now(UTC)
    folder = submit(queue, 0)
    folder.write_progress(RunProgress(state=RunState.RUNNING, round=3))
    assert queue.shown(digest_of_number(0)).waiting == WORKER_AWAY
    queue.beat()
    assert queue.shown(digest_of_number(0)).waiting == SERVERAPP_STARTING
    folder.beat()
    shown = queue.shown(digest_of_number(0))
    assert (shown.waiting, shown.round) == ("", 3)
    assert shown.carried is not None
    assert shown.since is not None
    assert queue.shown(digest_of_number(0), now + timedelta(seconds=30)).waiting == WORKER_AWAY
    folder.write_progress(RunProgress(state=RunState.RUNNING, waiting=SUPERLINK_DOWN))
    assert queue.shown(digest_of_number(0)).waiting == SUPERLINK_DOWN


def test_what_is_over_stays_what_it_is(tmp_path: Path) -> None:
    queue = FolderQueue(tmp_path)
    submit(queue, 0)
    queue.report(digest_of_number(0), RunProgress(state=RunState.FAILED, code="SERVERAPP_CRASHED"))
    shown = queue.shown(digest_of_number(0), datetime.now(UTC) + timedelta(days=9))
    assert (shown.state, shown.code, shown.waiting) == (RunState.FAILED, "SERVERAPP_CRASHED", "")


def test_the_moment_of_a_state_stays_while_the_state_does(tmp_path: Path) -> None:
    folder = submit(FolderQueue(tmp_path), 0)
    folder.write_progress(RunProgress(state=RunState.RUNNING))
    since = folder.read_progress().since
    folder.write_progress(folder.read_progress().model_copy(update={"round": 1}))
    assert since is not None
    assert folder.read_progress().since == since


class DownGrid(GridSimulator):
    """A SuperLink that is away; notes what the order's page says meanwhile."""

    folder: RunFolder
    said: list[str]

    def _may_be_down(self) -> None:
        self.said.append(self.folder.read_progress().waiting)
        super()._may_be_down()


def test_a_run_says_that_its_super_link_is_away_and_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.federation.carried._AWAY_S", 0.0)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    world = World(tmp_path)
    grid = DownGrid(world.grid.stations, world.grid.online, down_for=3)
    world.grid, grid.folder, grid.said = grid, world.accept(), []
    world.rounds(grid.folder).run()
    assert grid.said[:4] == ["", SUPERLINK_DOWN, SUPERLINK_DOWN, SUPERLINK_DOWN]
    assert (grid.said[-1], grid.folder.read_progress().state) == ("", RunState.FINISHED)
