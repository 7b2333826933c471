"""A run that stations finished after the backup that the orchestrator came back from: collected again from what they recorded."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from federation_samples import NAMES
from federation_world import World, weights_after
from grid_simulator import Answer

from orchestrator.federation.orders import RunState
from orchestrator.federation.rounds import RunFailedError
from policies.wire.instructions import Instruction, Kind, StationReply, Status


class RecordingStation:
    """Answers as a station does: a finished order computes nothing, and answers with what it released."""

    def __init__(self, honest: Callable[[Instruction], Answer], forgets: set[tuple[str, int]]) -> None:
        self.honest, self.forgets = honest, forgets
        self.recorded: dict[tuple[str, int], Answer] = {}
        self.finished = False
        self.computed = 0

    def __call__(self, instruction: Instruction) -> Answer:
        key = (instruction.kind.value, instruction.round)
        if instruction.kind is Kind.FINISH:
            self.finished = True
        if not instruction.round and not (self.finished and instruction.kind is Kind.PREPARE):
            return self.honest(instruction)
        if key in self.recorded and not (self.finished and key in self.forgets):
            # The bytes lie here again: it sends what the orchestrator lacks.
            self.honest(instruction)
            return self.recorded[key]
        if self.finished:
            return StationReply(
                order_digest=instruction.order_digest,
                kind=instruction.kind,
                round=instruction.round,
                status=Status.REFUSED,
                code="ORDER_SPENT",
                correlation_id="c0ffee",
            )
        self.computed += 1
        self.recorded[key] = self.honest(instruction)
        return self.recorded[key]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def finished_once(world: World, forgets: dict[str, set[tuple[str, int]]]) -> tuple[list[float], list[object]]:
    for name in NAMES:
        world.behaviour[name] = RecordingStation(world.answer(name), forgets.get(name, set()))
    folder = world.accept()
    world.rounds(folder).run()
    found = weights_after(world, folder), [entry["weights"] for entry in folder.read_rounds()]
    # All that the backup has of it: nothing, or its first round.
    shutil.rmtree(folder.path)
    return found


def computed(world: World) -> list[int]:
    return [station.computed for station in world.behaviour.values() if isinstance(station, RecordingStation)]


def test_a_finished_run_is_collected_again_and_nothing_is_computed(world: World) -> None:
    model, digests = finished_once(world, {})
    before = computed(world)
    folder = world.accept()
    world.rounds(folder).run()
    progress = folder.read_progress()
    assert (progress.state, progress.missing) == (RunState.FINISHED, {})
    assert weights_after(world, folder) == model
    assert [entry["weights"] for entry in folder.read_rounds()] == digests
    assert [entry["took_part"] for entry in folder.read_rounds()] == [list(NAMES)] * 2
    assert computed(world) == before


def test_a_message_that_a_station_never_answered_is_missing_by_its_code_and_the_next_ones_are_taken(
    world: World,
) -> None:
    first, *others = NAMES
    finished_once(world, {first: {("train", 1)}})
    folder = world.accept()
    world.rounds(folder).run()
    one, two = folder.read_rounds()
    assert folder.read_progress().state is RunState.FINISHED
    assert one["absent"]["train"][first]["code"] == "ORDER_SPENT"
    assert one["absent"]["train"][first]["correlation_id"] == "c0ffee"
    assert (one["took_part"], two["took_part"]) == (others, list(NAMES))


def test_where_too_few_have_it_still_the_run_ends_with_their_code(world: World) -> None:
    everything = {(kind, number) for kind in ("train", "evaluate") for number in (1, 2)}
    finished_once(world, dict.fromkeys(NAMES, everything))
    folder = world.accept()
    with pytest.raises(RunFailedError, match="TOO_FEW_STATIONS_ANSWERED"):
        world.rounds(folder).run()
    assert set(folder.read_progress().missing.values()) == {"ORDER_SPENT"}
