"""An order is taken up once its acceptance is in the database, and is not lost where the front dies right after."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from test_orchestrator_orders import World, world

from orchestrator.backup.taking import BackupOptions, take_backup
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder
from orchestrator.registry.access import Principal, Role
from orchestrator.storage import OrderRow
from policies.errors import PhtError, RefusedError, StorageError

__all__ = ["world"]

KILLED = Path(__file__).parents[2] / "order_killed.py"


class Dying:
    """A database whose connection dies at each commit, or the process right after one."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.monkeypatch = world, monkeypatch
        self.queue = FolderQueue(world.place.home.runs)

    def accept(self, envelope: bytes) -> str:
        alice = Principal(Role.RESEARCHER, "alice")
        return self.world.place.services.orders.accept(alice, envelope).order_digest

    def die_at_commit(self, envelope: bytes) -> None:
        def die(session: Session) -> None:
            if session.scalar(select(OrderRow.digest)) is not None:
                raise OperationalError("COMMIT", None, Exception("the server closed the connection"))

        event.listen(Session, "before_commit", die)
        try:
            with pytest.raises(PhtError):
                self.accept(envelope)
        finally:
            event.remove(Session, "before_commit", die)

    def die_after_commit(self, envelope: bytes) -> None:
        def die(_: object) -> None:
            raise StorageError("the power went")

        with self.monkeypatch.context() as patched:
            patched.setattr("orchestrator.registry.orders.publish", die)
            with pytest.raises(StorageError):
                self.accept(envelope)


@pytest.fixture
def dying(world: World, monkeypatch: pytest.MonkeyPatch) -> Dying:
    return Dying(world, monkeypatch)


def test_an_order_whose_acceptance_is_not_in_the_database_is_never_taken_up(
    world: World, dying: Dying
) -> None:
    envelope = world.order()
    dying.die_at_commit(envelope)
    world.place.services.keep_up()
    assert dying.queue.next_order() is None
    assert world.alice.runs() == []
    digest = dying.accept(envelope)
    taken = dying.queue.next_order()
    assert taken is not None
    assert taken.order_digest == digest
    assert [run.digest for run in world.alice.runs()] == [digest]


def test_an_order_whose_front_died_after_its_acceptance_is_queued_by_the_next_one(
    world: World, dying: Dying, tmp_path: Path
) -> None:
    dying.die_after_commit(world.order())
    # It is shown, and is in a backup, though nobody takes it up yet.
    [run] = world.alice.runs()
    assert dying.queue.next_order() is None
    take_backup(world.place.home, tmp_path / "backup", BackupOptions())
    world.place.services.keep_up()
    taken = dying.queue.next_order()
    assert taken is not None
    assert taken.order_digest == run.digest


def test_an_order_whose_front_died_after_its_acceptance_is_queued_by_giving_it_again(
    world: World, dying: Dying
) -> None:
    envelope = world.order()
    dying.die_after_commit(envelope)
    bob = world.place.client(Role.RESEARCHER, "bob")
    with pytest.raises(RefusedError):
        bob.post_order(envelope)
    digest = world.alice.post_order(envelope)
    taken = dying.queue.next_order()
    assert taken is not None
    assert taken.order_digest == digest
    assert world.refused(envelope) == "ORDER_SPENT"


_POLICY_WRITTEN = ("orchestrator.registry.orders:write_atomically", "after")
_PREPARED = ("orchestrator.federation.orders:FolderQueue.prepare", "after")
_COMMITTED = ("orchestrator.registry.orders:publish", "before")
_BEGUN_TO_GO = ("orchestrator.federation.accepting:sync_folder", "before")


def _killed(world: World, envelope: bytes, action: str, at: tuple[str, str]) -> None:
    """The kernel's SIGKILL, in a process of its own."""
    (world.folder / "envelope").write_bytes(envelope)
    done = subprocess.run(
        [sys.executable, str(KILLED), str(world.place.home.path), str(world.folder / "envelope"), action, *at],
        capture_output=True, text=True, timeout=180, check=False, cwd=KILLED.parent,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def _folders(world: World) -> list[str]:
    return [path.name for path in world.place.home.runs.iterdir() if path.is_dir()]


@pytest.mark.parametrize("at", [_POLICY_WRITTEN, _PREPARED])
def test_nothing_stays_of_an_order_that_was_killed_before_its_acceptance(
    world: World, dying: Dying, at: tuple[str, str]
) -> None:
    envelope = world.order()
    _killed(world, envelope, "accept", at)
    assert len(_folders(world)) == 1
    # And a kill while it is being removed leaves nothing that stays either.
    _killed(world, envelope, "put-right", _BEGUN_TO_GO)
    assert dying.queue.next_order() is None
    world.place.services.keep_up()
    assert _folders(world) == []
    assert world.alice.runs() == []
    digest = dying.accept(envelope)
    taken = dying.queue.next_order()
    assert taken is not None
    assert taken.order_digest == digest
    world.place.services.keep_up()
    assert _folders(world) == [digest.removeprefix("sha256:")]


def test_an_order_that_was_killed_right_after_its_acceptance_is_taken_up(world: World, dying: Dying) -> None:
    envelope = world.order()
    _killed(world, envelope, "accept", _COMMITTED)
    assert dying.queue.next_order() is None
    world.place.services.keep_up()
    taken = dying.queue.next_order()
    assert taken is not None
    assert [run.digest for run in world.alice.runs()] == [taken.order_digest]
    assert world.refused(envelope) == "ORDER_SPENT"


def test_an_order_that_is_being_accepted_is_not_taken_for_a_crash(
    world: World, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread puts right what it finds while an acceptance is half done: it waits for that."""
    prepared = threading.Event()
    plain = FolderQueue.prepare

    def prepare(queue: FolderQueue, accepted: AcceptedOrder) -> RunFolder:
        folder = plain(queue, accepted)
        prepared.set()
        beside.start()
        # It is at the folder now, or about to be: there is no telling, and either way it must come to nothing.
        beside.join(0.5)
        return folder

    def put_right() -> None:
        prepared.wait(60)
        world.place.services.orders.put_right()

    beside = threading.Thread(target=put_right)
    monkeypatch.setattr(FolderQueue, "prepare", prepare)
    digest = dying.accept(world.order())
    beside.join(60)
    assert not beside.is_alive()
    taken = dying.queue.next_order()
    assert taken is not None
    assert taken.order_digest == digest
