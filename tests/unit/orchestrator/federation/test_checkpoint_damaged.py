"""A run whose files do not say where to go on fails and leaves them, rather than go on from other weights."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from federation_world import World, weights_after
from grid_simulator import Answer

from orchestrator.federation.orders import RunFolder
from orchestrator.federation.rounds import RunFailedError
from policies.files import write_atomically
from policies.wire.instructions import Instruction, Kind

ROUNDS = 3
STRATEGY = {"name": "FedAvgM", "parameters": {"server_momentum": 0.9}}


class Crash(BaseException):
    """The process ends here."""


def _crash_at(world: World, folder: RunFolder, kind: Kind, round_: int) -> None:
    def crash(instruction: Instruction) -> Answer:
        if (instruction.kind, instruction.round) == (kind, round_):
            raise Crash
        return world.answer("amstel")(instruction)

    world.behaviour["amstel"] = crash
    with pytest.raises(Crash):
        world.rounds(folder).run()
    world.behaviour.clear()


def _files(world: World, folder: RunFolder) -> dict[str, bytes]:
    paths = [*folder.path.rglob("*"), *(world.blobs / "sha256").iterdir()]
    return {str(path): path.read_bytes() for path in paths if path.is_file() and path.name != "state.json"}


def _changed(folder: RunFolder, **changes: Any) -> None:
    folder.write_json("checkpoint.json", (folder.read_json("checkpoint.json") or {}) | changes)


def damaged(folder: RunFolder) -> None:
    path = folder.path / "checkpoint.json"
    path.write_bytes(path.read_bytes()[:-20])


def emptied(folder: RunFolder) -> None:
    folder.write_json("checkpoint.json", {})


def missing(folder: RunFolder) -> None:
    (folder.path / "checkpoint.json").unlink()


def older(folder: RunFolder) -> None:
    _changed(folder, round=1)


def newer(folder: RunFolder) -> None:
    _changed(folder, round=ROUNDS + 7)


def of_another_run(folder: RunFolder) -> None:
    other = {"digest": "sha256:" + "5" * 64, "size": 80}
    _changed(folder, weights=other, previous_weights=other)


def a_line_lost_between(folder: RunFolder) -> None:
    path = folder.path / "rounds.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    # Another file: who reads on in one process looks at what came since.
    write_atomically(path, b"".join([b"#" + first[1:], *rest]))


@pytest.mark.parametrize(
    "damage", [damaged, emptied, missing, older, newer, of_another_run, a_line_lost_between]
)
@pytest.mark.parametrize("moment", [(Kind.TRAIN, 3), (Kind.EVALUATE, 3)], ids=["between", "averaged"])
def test_a_run_without_its_checkpoint_fails_and_nothing_is_deleted(
    world: World, damage: Callable[[RunFolder], None], moment: tuple[Kind, int]
) -> None:
    folder = world.accept(rounds=ROUNDS, strategy=STRATEGY)
    _crash_at(world, folder, *moment)
    assert folder.rounds.count() == 2
    whole = {name: (folder.path / name).read_bytes() for name in ("checkpoint.json", "rounds.jsonl")}
    damage(folder)
    before = _files(world, folder)
    with pytest.raises(RunFailedError, match="CHECKPOINT_DAMAGED"):
        world.rounds(folder).run()
    assert _files(world, folder) == before
    assert any("strategy" in name for name in before)
    # Its operator puts back what a backup has.
    for name, data in whole.items():
        write_atomically(folder.path / name, data)
    world.rounds(folder).run()
    undisturbed = world.accept(rounds=ROUNDS, strategy=STRATEGY, number=8)
    world.rounds(undisturbed).run()
    assert weights_after(world, folder) == weights_after(world, undisturbed)


def test_a_checkpoint_that_is_lost_before_the_first_line_fails_too(world: World) -> None:
    folder = world.accept(rounds=ROUNDS)
    _crash_at(world, folder, Kind.EVALUATE, 1)
    damaged(folder)
    with pytest.raises(RunFailedError, match="CHECKPOINT_DAMAGED"):
        world.rounds(folder).run()


def test_a_last_line_that_a_crash_cut_off_takes_its_place_again(world: World) -> None:
    folder = world.accept(rounds=ROUNDS)
    _crash_at(world, folder, Kind.TRAIN, 3)
    path = folder.path / "rounds.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    world.rounds(folder).run()
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
