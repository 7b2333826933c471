"""A station that lies is out of the run at once, by name and code, and what it sent is in no average; the others go on without it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from federation_samples import NAMES
from federation_world import ORDER, World, weights_after
from grid_simulator import Answer
from safetensors.numpy import save

from orchestrator.federation.orders import RunState
from orchestrator.federation.rounds import RunFailedError
from orchestrator.federation.updates import update_path
from policies.policy import TensorRules
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, encode

LIAR = "berkel"
HONEST = [name for name in NAMES if name != LIAR]


@dataclass(frozen=True)
class Lie:
    """What a station changes of an honest answer to one stage; its rules are the policy's."""

    code: str
    kind: Kind = Kind.TRAIN
    changes: dict[str, object] = field(default_factory=dict)
    arrays: bytes | None = None
    tensors: dict[str, object] = field(default_factory=dict)
    body: Callable[[bytes], bytes] | None = None


def _delta(values: list[float], dtype: str = "float32") -> bytes:
    return save({"w": np.array(values, dtype=dtype)})


def _spaced(data: bytes) -> bytes:
    """The same tensors, with eight spaces more in the header."""
    length = int.from_bytes(data[:8], "little")
    return (length + 8).to_bytes(8, "little") + data[8 : 8 + length] + b" " * 8 + data[8 + length :]


LIES = {
    "a larger norm": Lie("RELEASE_NORM", arrays=_delta([3.0, 3.0, 3.0, 3.0]), tensors={"clipping_norm": 5.0}),
    "another precision": Lie("RELEASE_TENSOR_DTYPE", arrays=_delta([1.0] * 4), tensors={"precision": "float16"}),
    "a number out of range": Lie("RELEASE_TENSOR_RANGE", arrays=_delta([11.0, 0, 0, 0]), tensors={"maximum_absolute": 10.0}),
    "a number that is none": Lie("RELEASE_TENSOR_NOT_FINITE", arrays=_delta([np.nan, 0, 0, 0])),
    "a sign of zero": Lie("RELEASE_TENSOR_RANGE", arrays=_delta([-0.0, 0, 0, 0])),
    "room in the header": Lie("RELEASE_UNPARSEABLE", arrays=_spaced(_delta([1.0] * 4))),
    "another shape": Lie("RELEASE_TENSOR_SHAPE", arrays=_delta([1.0] * 5)),
    "another tensor": Lie("RELEASE_TENSOR_EXTRA", arrays=save({"w": np.zeros(4, np.float32), "x": np.zeros(1, np.float32)})),
    "no examples": Lie("REPLY_WITHOUT_EXAMPLES", changes={"num_examples": 0}),
    "an exact number of examples": Lie("REPLY_EXAMPLES", changes={"num_examples": 13}),
    "seconds where none are told": Lie("REPLY_SECONDS", changes={"compute_s": 1.25}),
    "a metric of its own": Lie("RELEASE_METRIC_EXTRA", changes={"metrics": {"names": 1.0}}),
    "a metric out of range": Lie("RELEASE_METRIC_RANGE", changes={"metrics": {"loss": 100.5}}),
    "a metric with more decimals": Lie("RELEASE_METRIC_RANGE", changes={"metrics": {"loss": 0.123456789}}),
    "a whole number for a float": Lie("RELEASE_METRIC_RANGE", changes={"metrics": {"loss": 1}}),
    "a metric that the policy keeps": Lie("RELEASE_NOT_PERMITTED", Kind.EVALUATE, {"metrics": {"auc": 0.5}}),
    "a table of its own": Lie("RELEASE_TABLE_EXTRA", Kind.EVALUATE, {"tables": {"names": [[1]]}}),
    "an update to an evaluation": Lie("RELEASE_NOT_PERMITTED", Kind.EVALUATE, {"release": Blob(digest=ORDER, size=1)}),
    "an answer to another round": Lie("REPLY_OF_ANOTHER_MESSAGE", changes={"round": 7}),
    "keys in another order": Lie("REPLY_UNREADABLE", body=lambda body: b"{ " + body[1:]),
    "no reply": Lie("REPLY_UNREADABLE", body=lambda _: b"\x80\x04."),
}  # fmt: skip


def _lying(world: World, lie: Lie, round_: int = 1) -> Callable[[Instruction], Answer]:
    def answer(instruction: Instruction) -> Answer:
        reply = world.answer(LIAR)(instruction)
        if (
            instruction.kind is not lie.kind
            or instruction.round != round_
            or not isinstance(reply, StationReply)
        ):
            return reply
        changes = dict(lie.changes)
        if lie.arrays is not None:
            changes["release"] = world.upload(LIAR, lie.arrays)
        told = StationReply(**(reply.model_dump() | changes))
        return told if lie.body is None else lie.body(encode(told))

    return answer


def _honest(world: World, name: str, tensors: TensorRules) -> Callable[[Instruction], Answer]:
    """As the world's stations, in the policy's precision."""

    def answer(instruction: Instruction) -> Answer:
        reply = world.answer(name)(instruction)
        if isinstance(reply, StationReply) and reply.release is not None:
            data = save({"w": np.ones(4, dtype=tensors.precision)})
            return reply.model_copy(update={"release": world.upload(name, data)})
        return reply

    return answer


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_a_station_that_lies_is_out_of_the_run(world: World, lie: Lie) -> None:
    tensors = TensorRules(**lie.tensors)  # type: ignore[arg-type]
    folder = world.accept(metrics=("loss",), tensors=tensors)
    world.behaviour |= {name: _honest(world, name, tensors) for name in HONEST}
    world.behaviour[LIAR] = _lying(world, lie)
    world.rounds(folder).run()
    progress, (first, second) = folder.read_progress(), folder.read_rounds()
    assert progress.state is RunState.FINISHED
    assert progress.excluded == {LIAR: lie.code}
    assert [entry["excluded"] for entry in (first, second)] == [{LIAR: lie.code}] * 2
    assert [entry["took_part"] for entry in (first, second)] == [HONEST] * 2
    assert second["missing"] == {LIAR: lie.code}
    assert second["absent"]["train"][LIAR]["code"] == lie.code
    assert f"{Kind.TRAIN} 2" not in world.asked(LIAR)
    if lie.kind is Kind.TRAIN:
        assert sorted(first["train"]) == HONEST
        assert weights_after(world, folder) == [2.0] * 4


def test_an_excluded_station_stays_out_after_a_crash_and_a_resume(world: World) -> None:
    folder = world.accept(metrics=("loss",))

    def crash(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.EVALUATE:
            raise KeyboardInterrupt
        return world.answer("amstel")(instruction)

    world.behaviour |= {LIAR: _lying(world, LIES["no examples"]), "amstel": crash}
    with pytest.raises(KeyboardInterrupt):
        world.rounds(folder).run()
    world.behaviour.clear()
    world.grid.asked.clear()
    world.rounds(folder).run()
    assert folder.read_progress().excluded == {LIAR: "REPLY_WITHOUT_EXAMPLES"}
    assert world.asked(LIAR) == ["finish 0"]
    assert [entry["took_part"] for entry in folder.read_rounds()] == [HONEST] * 2


def test_the_quorum_is_judged_without_the_excluded(world: World) -> None:
    folder = world.accept(metrics=("loss",), minimum_stations=3)
    world.behaviour[LIAR] = _lying(world, LIES["no examples"], round_=2)
    with pytest.raises(RunFailedError, match="TOO_FEW_STATIONS_ANSWERED"):
        world.rounds(folder).run()
    assert len(folder.read_rounds()) == 1
    assert folder.read_progress().missing == {LIAR: "REPLY_WITHOUT_EXAMPLES"}


@pytest.mark.parametrize(("second", "counts"), [(90, 90), (100, 100), (110, 100), (120, None), (10, 10)])
def test_a_stations_examples_may_fall_and_not_grow(world: World, second: int, counts: int | None) -> None:
    """A patient who withdraws takes images along; nobody's weight grows within a run, and one that tries hard is out."""
    folder = world.accept(metrics=("loss",))

    def counting(instruction: Instruction) -> Answer:
        reply = world.answer(LIAR)(instruction)
        assert isinstance(reply, StationReply)
        return reply.model_copy(update={"num_examples": 100 if instruction.round < 2 else second})

    world.behaviour[LIAR] = counting
    world.rounds(folder).run()
    entry = folder.read_rounds()[1]
    assert entry["examples"]["train"].get(LIAR) == counts
    assert folder.read_progress().excluded == ({} if counts else {LIAR: "REPLY_EXAMPLES_CHANGED"})


def test_what_our_own_disk_damaged_excludes_nobody(world: World) -> None:
    """What the station did send is asked for again, and sent again."""
    folder = world.accept(metrics=("loss",), straggler_s=30.0)

    def damaged(instruction: Instruction) -> Answer:
        reply = world.answer(LIAR)(instruction)
        if not isinstance(reply, StationReply) or reply.release is None:
            return reply
        data = _delta([0.5, 0.25, 0.125, instruction.round])
        release = world.upload(LIAR, data)
        if instruction.attempt == 1:
            update_path(world.blobs, ORDER, LIAR, release.digest).write_bytes(data[:-1] + b"\x7f")
        return reply.model_copy(update={"release": release})

    world.behaviour[LIAR] = damaged
    world.rounds(folder).run()
    assert [entry["took_part"] for entry in folder.read_rounds()] == [list(NAMES)] * 2
    assert folder.read_progress().excluded == {}


def test_whole_bytes_of_another_size_than_the_reply_says_are_no_damage_of_ours(world: World) -> None:
    folder = world.accept(metrics=("loss",))

    def liar(instruction: Instruction) -> Answer:
        reply = world.answer(LIAR)(instruction)
        if not isinstance(reply, StationReply) or reply.release is None:
            return reply
        larger = reply.release.model_copy(update={"size": reply.release.size + 1})
        return reply.model_copy(update={"release": larger})

    world.behaviour[LIAR] = liar
    world.rounds(folder).run()
    assert folder.read_progress().excluded == {LIAR: "RELEASE_DIGEST"}
