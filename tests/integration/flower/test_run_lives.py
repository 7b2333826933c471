"""Stations that come late, are lost, leave or lie, and orders that wait for them: through a real SuperLink and real agents."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flower_federation import Federation, PlainStation, federation, order, wait_until, weights
from safetensors.numpy import save

from orchestrator.federation.orders import RunFolder, RunState, Timing
from orchestrator.federation.places import STATIONS_FULL
from policies.documents import digest_of
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status

pytestmark = pytest.mark.superlink

Answer = tuple[StationReply, bytes | None]
TIMING = Timing(prepare_s=120.0, prepare_grace_s=1.0, answer_s=120.0, straggler_s=2.0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Federation]:
    with federation(tmp_path) as found:
        yield found


def _revoked_in_round(number: int, reply: StationReply, arrays: bytes | None) -> Answer:
    if reply.round != number:
        return reply, arrays
    changes = {"status": Status.REFUSED, "code": "POLICY_REVOKED", "metrics": {}, "release": None}
    return reply.model_copy(update=changes), None


def _until_round(folder: RunFolder, number: int) -> None:
    wait_until(lambda: folder.rounds.count() >= number, f"round {number}")


def test_who_is_late_lost_or_gone_is_said_so_and_the_run_goes_on(running: Federation) -> None:
    """Dommel is late to join, berkel is lost and comes back, and amstel's policy is revoked there in the end."""
    amstel = PlainStation(1, 10, delay_s=0.5)
    running.join("amstel", amstel)
    first = running.join("berkel", PlainStation(2, 20))
    initial = weights()
    running.put_blob(initial)
    # More rounds than it can come to: it is stopped in the end.
    folder = running.accept(order(initial, rounds=5000, minimum_stations=1), TIMING)
    _until_round(folder, 1)
    # The first may have begun without another who was slow to accept.
    wait_until(lambda: folder.read_rounds()[-1]["missing"] == {"dommel": "LATE"}, "dommel alone is late")
    running.join("dommel", PlainStation(3, 30))
    wait_until(lambda: "dommel" in folder.read_rounds()[-1]["took_part"], "dommel takes part")
    first.stop(5.0)
    wait_until(lambda: folder.read_rounds()[-1]["missing"].get("berkel") == "LOST", "berkel is lost")
    running.join("berkel", PlainStation(2, 20, delay_s=0.5))
    wait_until(lambda: "berkel" in folder.read_rounds()[-1]["took_part"], "berkel is back")
    amstel.alter = lambda _, reply, arrays: _revoked_in_round(reply.round, reply, arrays)
    wait_until(lambda: folder.read_rounds()[-1]["missing"] == {"amstel": "POLICY_REVOKED"}, "amstel left")
    asked = len(amstel.seen)
    count = folder.rounds.count()
    _until_round(folder, count + 2)
    assert len(amstel.seen) == asked
    last = folder.read_rounds()[-1]
    assert (last["of"], last["took_part"]) == (3, ["berkel", "dommel"])
    assert last["absent"]["train"]["amstel"]["since"] is not None
    running.queue.request_stop(folder.order_digest)
    wait_until(lambda: folder.read_progress().state is RunState.STOPPED, "stopped")


def _lies(instruction: Instruction, reply: StationReply, arrays: bytes | None) -> Answer:
    if instruction.kind is not Kind.TRAIN:
        return reply, arrays
    data = save({"layer.weight": np.full((3, 4), np.inf, np.float32)})
    return reply.model_copy(update={"release": Blob(digest=digest_of(data), size=len(data))}), data


def test_a_liar_is_out_and_what_waits_says_for_what(running: Federation) -> None:
    gate, liar = threading.Event(), PlainStation(3, 30, alter=_lies)

    def held(instruction: Instruction, reply: StationReply, arrays: bytes | None) -> Answer:
        if instruction.kind is Kind.EVALUATE:
            gate.wait(300.0)
        return reply, arrays

    running.join("amstel", PlainStation(1, 10))
    running.join("berkel", PlainStation(2, 20, alter=held))
    running.join("dommel", liar)
    initial = weights()
    running.put_blob(initial)
    folders = [running.accept(order(initial, rounds=2, nonce=str(number) * 32)) for number in range(3)]
    first, second, third = folders
    for folder in (first, second):
        wait_until(lambda folder=folder: "dommel" in folder.read_progress().excluded, "the liar is out")  # type: ignore[misc]
    # Two at once are asked of a station; the third order says whom it waits for.
    wait_until(lambda: running.queue.shown(third.order_digest).full == ("amstel", "berkel"), "the queue")
    shown = running.queue.shown(third.order_digest)
    assert (shown.state, shown.position, shown.waiting) == (RunState.QUEUED, 1, STATIONS_FULL)
    running.queue.request_stop(third.order_digest)
    wait_until(lambda: third.read_progress().state is RunState.STOPPED, "the queued one is stopped")
    gate.set()
    for folder in (first, second):
        wait_until(lambda folder=folder: folder.read_progress().state.is_over, "the order")  # type: ignore[misc]
        assert folder.read_progress().state is RunState.FINISHED
        assert folder.read_progress().excluded == {"dommel": "RELEASE_TENSOR_MISSING"}
        assert [entry["took_part"] for entry in folder.read_rounds()] == [["amstel", "berkel"]] * 2
    assert ("train", 2) not in liar.questions
    running.queue.resume(third.order_digest)
    wait_until(lambda: third.read_progress().state.is_over, "the third order")
    assert third.read_progress().state is RunState.FINISHED
