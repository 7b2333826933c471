"""An order's rounds on a simulated grid: what is durable after each step, and what a second life makes of it."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from federation_samples import NAMES, manifest, run_order
from flwr.supercore.task_identity import TaskIdentity
from grid_simulator import Answer, GridSimulator
from safetensors.numpy import load_file, save

from orchestrator.federation import deadlines
from orchestrator.federation.exchange import Exchange
from orchestrator.federation.orders import AcceptedOrder, FolderQueue, RunFolder, RunState, Timing
from orchestrator.federation.rounds import Rounds, RunFailedError
from orchestrator.federation.updates import update_path
from policies.bundle import BlobFolder
from policies.documents import digest_of
from policies.policy import DifferentialPrivacy, ReleaseRules, TensorRules
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

NODES = {name: number + 1 for number, name in enumerate(NAMES)}
WEIGHTS = save({"w": np.zeros(4, dtype=np.float32)})
ORDER = "sha256:" + "7" * 64


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


class World:
    """One order's folder, a blob folder, and stations that release a step of their number."""

    def __init__(self, path: Path) -> None:
        self.blobs = path / "blobs"
        self.put(WEIGHTS)
        self.queue = FolderQueue(path / "runs")
        self.behaviour: dict[str, Callable[[Instruction], Answer]] = {}
        self.grid = GridSimulator(
            {NODES[name]: self._station(name) for name in NAMES}, online=set(NODES.values())
        )

    def put(self, data: bytes) -> str:
        path = self.blobs / "sha256" / digest_of(data)[7:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest_of(data)

    def upload(self, name: str, data: bytes, order: str = ORDER) -> Blob:
        """As a station sends a release: for one order, apart from the blobs."""
        path = update_path(self.blobs, order, name, digest_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return Blob(digest=digest_of(data), size=len(data))

    def updates(self) -> list[Path]:
        return list(self.blobs.glob("updates/*/*/*"))

    def accept(
        self,
        metrics: tuple[str, ...] = ("loss", "auc"),
        tensors: TensorRules = TensorRules(),
        straggler_s: float = 0.2,
        number: int = 7,
        **changes: object,
    ) -> RunFolder:
        weights = {"digest": digest_of(WEIGHTS), "size": len(WEIGHTS)}
        return self.queue.submit(
            AcceptedOrder(
                order_digest="sha256:" + str(number) * 64,
                envelope="{}",
                order=run_order(**({"initial_weights": weights} | changes)),
                manifest=manifest(),
                release=ReleaseRules(tensors=tensors, metrics=metrics, maximum_bytes=1000),
                nodes=NODES,
                timing=Timing(prepare_s=5.0, prepare_grace_s=0.2, answer_s=5.0, straggler_s=straggler_s),
            )
        )

    def rounds(self, folder: RunFolder) -> Rounds:
        exchange = Exchange(self.grid, NODES, threading.Event(), poll_s=0.002)
        return Rounds(folder, BlobFolder(self.blobs), exchange)

    def answer_later(self, node: int, answer: Callable[[Instruction], Answer]) -> None:
        """Let a station answer now what it was silent about."""
        for message in self.grid.silent.pop(node, []):
            self.grid.reply(message, answer)

    def asked(self, name: str) -> list[str]:
        return [f"{entry.kind} {entry.round}" for node, entry in self.grid.asked if node == NODES[name]]

    def _station(self, name: str) -> Callable[[Instruction], Answer]:
        def behave(instruction: Instruction) -> Answer:
            now = self.behaviour.get(name, self.answer(name))
            return now(instruction)

        return behave

    def answer(self, name: str) -> Callable[[Instruction], Answer]:
        def reply(instruction: Instruction) -> Answer:
            fields: dict[str, object] = {
                "order_digest": instruction.order_digest, "kind": instruction.kind, "round": instruction.round, "num_examples": 10,
                "status": {Kind.PREPARE: Status.ACCEPTED, Kind.FINISH: Status.FINISHED}.get(
                    instruction.kind, Status.RELEASED
                ),
            }  # fmt: skip
            if instruction.kind is Kind.TRAIN:
                delta = save({"w": np.full(4, NODES[name], dtype=np.float32)})
                fields["release"] = self.upload(name, delta, instruction.order_digest)
                fields["metrics"] = {"loss": 1.0}
            return StationReply(**fields)

        return reply


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _w(world: World, folder: RunFolder) -> list[float]:
    digest = folder.read_rounds()[-1]["weights"]["digest"]
    return [float(value) for value in load_file(world.blobs / "sha256" / digest[7:])["w"]]


def test_an_order_runs_to_its_end_and_leaves_no_single_update(world: World) -> None:
    folder = world.accept()
    world.rounds(folder).run()
    assert folder.read_progress().state is RunState.FINISHED
    assert _w(world, folder) == [4.0] * 4
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
    assert _w(world, folder) == [4.0] * 4


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
