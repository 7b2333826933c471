"""An order is taken up once its acceptance is in the database, and is not lost where the front dies right after."""

from pathlib import Path

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from test_orchestrator_orders import World, world

from orchestrator.backup.taking import BackupOptions, take_backup
from orchestrator.federation.orders import FolderQueue
from orchestrator.registry.access import Principal, Role
from orchestrator.storage import OrderRow
from policies.errors import PhtError, RefusedError, StorageError

__all__ = ["world"]


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
