"""An order's rounds on a simulated grid: what is durable after each step, and what a second life makes of it."""

import numpy as np
import pytest
from federation_samples import NAMES
from federation_world import NODES, ORDER, WEIGHTS, World, weights_after
from grid_simulator import Answer
from safetensors.numpy import save

from orchestrator.federation import deadlines
from orchestrator.federation.orders import RunState, Timing
from orchestrator.federation.rounds import RunFailedError
from orchestrator.federation.updates import update_path
from policies.documents import digest_of
from policies.policy import DifferentialPrivacy
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status


def test_an_order_runs_to_its_end_and_leaves_no_single_update(world: World) -> None:
    folder = world.accept()
    world.rounds(folder).run()
    assert folder.read_progress().state is RunState.FINISHED
    assert weights_after(world, folder) == [4.0] * 4
    assert [entry["took_part"] for entry in folder.read_rounds()] == [list(NAMES)] * 2
    # The initial weights and those of two rounds.
    assert len(list((world.blobs / "sha256").iterdir())) == 3
    assert world.updates() == []


def test_a_crash_between_average_and_evaluation_asks_for_the_evaluation_only(world: World) -> None:
    folder = world.accept()

    def crash(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.EVALUATE:
            raise KeyboardInterrupt
        return world.answer("amstel")(instruction)

    world.behaviour["amstel"] = crash
    with pytest.raises(KeyboardInterrupt):
        world.rounds(folder).run()
    assert folder.read_rounds() == []
    world.behaviour.clear()
    world.grid.asked.clear()
    world.rounds(folder).run()
    assert world.asked("amstel") == ["prepare 0", "evaluate 1", "train 2", "evaluate 2", "finish 0"]
    assert folder.read_rounds()[0]["train"] == {name: {"loss": 1.0} for name in NAMES}
    assert weights_after(world, folder) == [4.0] * 4


def test_a_restart_while_a_stations_clock_is_wrong_is_not_the_end_of_it(world: World) -> None:
    folder = world.accept(minimum_stations=2)
    refusals = 0

    def crash(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.EVALUATE:
            raise KeyboardInterrupt
        return world.answer("amstel")(instruction)

    def wrong_clock(instruction: Instruction) -> Answer:
        nonlocal refusals
        if instruction.kind is Kind.PREPARE and refusals == 0:
            refusals += 1
            return StationReply(
                order_digest=ORDER, kind=instruction.kind, round=instruction.round, status=Status.REFUSED,
                code="CONSENT_UNKNOWN",
            )  # fmt: skip
        return world.answer("amstel")(instruction)

    world.behaviour["amstel"] = crash
    with pytest.raises(KeyboardInterrupt):
        world.rounds(folder).run()
    world.behaviour["amstel"] = wrong_clock
    world.rounds(folder).run()
    assert refusals == 1
    assert [entry["took_part"] for entry in folder.read_rounds()] == [list(NAMES)] * 2


def test_a_finished_round_is_not_asked_for_again(world: World) -> None:
    folder = world.accept()
    world.rounds(folder).run()
    world.grid.asked.clear()
    world.rounds(folder).run()
    assert world.asked("amstel") == ["finish 0"]


def test_a_station_that_was_away_joins_later(world: World) -> None:
    folder = world.accept(rounds=3)
    world.grid.online.discard(NODES["dommel"])

    def away(instruction: Instruction) -> Answer:
        if NODES["dommel"] not in world.grid.online:
            return None
        return world.answer("dommel")(instruction)

    def back_after_round_one(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.EVALUATE:
            world.grid.online.add(NODES["dommel"])
        return world.answer("amstel")(instruction)

    world.behaviour |= {"dommel": away, "amstel": back_after_round_one}
    world.rounds(folder).run()
    rounds = folder.read_rounds()
    assert rounds[0]["missing"] == {"dommel": "LATE"}
    assert [entry["took_part"] for entry in rounds] == [["amstel", "berkel"], list(NAMES), list(NAMES)]


def test_a_station_that_lost_its_state_prepares_again(world: World) -> None:
    folder = world.accept()
    prepared = False

    def forgetful(instruction: Instruction) -> Answer:
        nonlocal prepared
        if instruction.kind is Kind.TRAIN and instruction.round == 1:
            prepared = False
        prepared = prepared or instruction.kind is Kind.PREPARE
        if not prepared:
            return StationReply(
                order_digest=ORDER, kind=instruction.kind, round=instruction.round, status=Status.REFUSED,
                code="INSTRUCTION_UNKNOWN_ORDER",
            )  # fmt: skip
        return world.answer("berkel")(instruction)

    world.behaviour["berkel"] = forgetful
    world.rounds(folder).run()
    first, second = folder.read_rounds()
    assert first["missing"] == {"berkel": "INSTRUCTION_UNKNOWN_ORDER"}
    assert second["took_part"] == list(NAMES)


def test_too_few_answers_fail_the_order_and_keep_its_checkpoint(world: World) -> None:
    folder = world.accept()

    def crashing(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.TRAIN and instruction.round == 2:
            return StationReply(
                order_digest=ORDER,
                kind=instruction.kind,
                round=2,
                status=Status.WITHHELD,
                code="RELEASE_TENSOR_EXTRA",
            )
        return world.answer("amstel")(instruction)

    world.behaviour |= {"amstel": crashing, "berkel": crashing}
    with pytest.raises(RunFailedError, match="TOO_FEW_STATIONS_ANSWERED"):
        world.rounds(folder).run()
    assert folder.read_progress().missing == {
        "amstel": "RELEASE_TENSOR_EXTRA",
        "berkel": "RELEASE_TENSOR_EXTRA",
    }
    assert len(folder.read_rounds()) == 1
    assert "finish 0" not in world.asked("dommel")


def test_a_release_that_is_not_there_is_named(world: World) -> None:
    folder = world.accept(rounds=1)

    def absent(instruction: Instruction) -> Answer:
        reply = world.answer("dommel")(instruction)
        if isinstance(reply, StationReply) and reply.release is not None:
            update_path(world.blobs, ORDER, "dommel", reply.release.digest).unlink()
        return reply

    world.behaviour["dommel"] = absent
    world.rounds(folder).run()
    assert folder.read_rounds()[0]["missing"] == {"dommel": "RELEASE_ABSENT"}


FOREIGN = save({"w": np.full(4, 7.0, dtype=np.float32)})
"""What fits as an update, and is somebody else's: a layer, or weights that no order uses yet."""


@pytest.mark.parametrize("data", [WEIGHTS, FOREIGN, b"a layer"], ids=["weights", "update", "layer"])
@pytest.mark.parametrize("more", [0, 1])
def test_what_a_station_never_sent_is_neither_its_release_nor_deleted(
    world: World, data: bytes, more: int
) -> None:
    folder = world.accept(rounds=1)
    world.put(data)
    foreign = Blob(digest=digest_of(data), size=len(data) + more)

    def sly(instruction: Instruction) -> Answer:
        reply = world.answer("berkel")(instruction)
        if isinstance(reply, StationReply) and reply.release is not None:
            reply = reply.model_copy(update={"release": foreign})
        return reply

    world.behaviour["berkel"] = sly
    world.rounds(folder).run()
    assert folder.read_rounds()[0]["missing"] == {"berkel": "RELEASE_ABSENT"}
    assert (world.blobs / "sha256" / foreign.digest[7:]).read_bytes() == data
    assert world.updates() == []


def test_another_stations_release_is_not_ones_own(world: World) -> None:
    folder = world.accept(rounds=1)
    theirs = save({"w": np.full(4, NODES["amstel"], dtype=np.float32)})

    def thief(instruction: Instruction) -> Answer:
        reply = world.answer("berkel")(instruction)
        if isinstance(reply, StationReply) and reply.release is not None:
            reply = reply.model_copy(update={"release": Blob(digest=digest_of(theirs), size=len(theirs))})
        return reply

    world.behaviour["berkel"] = thief
    world.rounds(folder).run()
    assert folder.read_rounds()[0]["missing"] == {"berkel": "RELEASE_ABSENT"}


def test_what_a_station_sent_for_another_order_it_need_not_send_again(world: World) -> None:
    """It asks whether its bytes are here without saying for which order."""
    folder, other = world.accept(rounds=1), "sha256:" + "8" * 64

    def thrifty(instruction: Instruction) -> Answer:
        reply = world.answer("berkel")(instruction)
        if isinstance(reply, StationReply) and reply.release is not None:
            here = update_path(world.blobs, ORDER, "berkel", reply.release.digest)
            there = update_path(world.blobs, other, "berkel", reply.release.digest)
            there.parent.mkdir(parents=True, exist_ok=True)
            here.replace(there)
        return reply

    world.behaviour["berkel"] = thrifty
    world.rounds(folder).run()
    assert folder.read_rounds()[0]["took_part"] == list(NAMES)
    # The other order's is its own to delete.
    assert [path.parts[-3] for path in world.updates()] == ["8" * 64]


def test_missing_initial_weights_fail_the_order(world: World) -> None:
    folder = world.accept(initial_weights={"digest": "sha256:" + "0" * 64, "size": 3})
    with pytest.raises(RunFailedError, match="WEIGHTS_ABSENT"):
        world.rounds(folder).run()


NOISE = DifferentialPrivacy(noise_multiplier=1.0, epsilon=1.0, delta=1e-6)


@pytest.mark.parametrize(
    ("rules", "kind", "answer_s"),
    [
        ({}, Kind.TRAIN, 600 + 120),
        # Done within the 2nd quantum, and one for the hello.
        ({"timing_quantum_s": 500.0}, Kind.TRAIN, 3 * 500 + 120),
        # Judged in a quantum of its own.
        ({"timing_quantum_s": 500.0, "differential_privacy": NOISE}, Kind.EVALUATE, 4 * 500 + 120),
        # Scored twice over, from the container's start to both answers: 2760 s.
        ({"membership_limit": 0.9}, Kind.TRAIN, 600 + 2760 + 120),
        ({"membership_limit": 0.9}, Kind.EVALUATE, 600 + 120),
        ({"timing_quantum_s": 500.0, "membership_limit": 0.9}, Kind.TRAIN, (2 + 6 + 1 + 1) * 500 + 120),
    ],
)
def test_a_station_has_the_time_that_its_policy_takes(
    world: World, rules: dict[str, object], kind: Kind, answer_s: float
) -> None:
    accepted = world.accept().read_order()
    patient = accepted.manifest.resources.model_copy(update={"message_timeout_s": 600})
    changed = accepted.model_copy(
        update={
            "manifest": accepted.manifest.model_copy(update={"resources": patient}),
            "release": accepted.release.model_copy(update=rules),
            "timing": Timing(),
        }
    )
    assert deadlines.answer_s(changed, kind) == answer_s
