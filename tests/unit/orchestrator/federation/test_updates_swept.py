"""Single updates of orders that are over are deleted, however they ended and whoever names them."""

import pytest
from federation_world import NODES, ORDER, World
from grid_simulator import Answer

from orchestrator.federation.orders import RunProgress, RunState
from orchestrator.federation.rounds import RunFailedError
from orchestrator.federation.updates import sweep_updates
from policies.wire.instructions import Instruction, Kind


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.FAILED, RunState.STOPPED])
def test_what_was_sent_for_an_order_that_is_over_goes(world: World, state: RunState) -> None:
    """As at the worker's start: no reply ever named these."""
    over, running = world.accept(), world.accept(number=8)
    world.upload("amstel", b"of the last round")
    world.upload("berkel", b"late")
    kept = world.upload("amstel", b"of the other", "sha256:" + "8" * 64)
    over.replies.mkdir()
    (over.replies / "amstel.inline").write_bytes(b"inline")
    over.write_progress(RunProgress(state=state, rounds=2, round=1))
    running.write_progress(RunProgress(state=RunState.RUNNING, rounds=2, round=1))
    sweep_updates(world.queue, world.blobs)
    assert [path.name for path in world.updates()] == [kept.digest[7:]]
    assert not over.replies.exists()


def test_what_was_sent_for_an_order_that_is_not_here_goes(world: World) -> None:
    world.upload("amstel", b"of a run that a restoration does not know")
    sweep_updates(world.queue, world.blobs)
    assert world.updates() == []


def test_nothing_else_goes(world: World) -> None:
    folder = world.accept()
    before = sorted(path.name for path in (world.blobs / "sha256").iterdir())
    folder.write_progress(RunProgress(state=RunState.FAILED, rounds=2, round=1))
    sweep_updates(world.queue, world.blobs)
    assert sorted(path.name for path in (world.blobs / "sha256").iterdir()) == before


def test_a_failed_run_that_is_resumed_is_sent_its_updates_again(world: World) -> None:
    folder = world.accept(minimum_stations=3)
    world.behaviour["dommel"] = lambda instruction: (
        None if instruction.kind is Kind.TRAIN else world.answer("dommel")(instruction)
    )
    with pytest.raises(RunFailedError, match="TOO_FEW_STATIONS_ANSWERED"):
        world.rounds(folder).run()
    assert len(world.updates()) == 2
    folder.write_progress(folder.read_progress().model_copy(update={"state": RunState.FAILED}))
    sweep_updates(world.queue, world.blobs)
    assert world.updates() == []
    world.queue.resume(ORDER)
    world.behaviour.clear()
    world.rounds(folder).run()
    assert [len(entry["took_part"]) for entry in folder.read_rounds()] == [len(NODES)] * 2


def test_an_update_that_comes_too_late_for_its_round_does_not_stay(world: World) -> None:
    folder = world.accept()

    def late(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.FINISH:
            world.upload("amstel", b"of the last round, during finish")
        if instruction.kind is Kind.EVALUATE:
            assert world.updates() == []
            world.upload("amstel", b"of a round that was averaged")
        return world.answer("amstel")(instruction)

    world.behaviour["amstel"] = late
    world.rounds(folder).run()
    assert world.updates() == []
