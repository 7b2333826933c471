"""SIGKILL to each process of a running order: it goes on, computes nothing twice, and ends with the same weights."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flower_federation import NAMES, Federation, PlainStation, federation, kill, order, wait_until, weights
from safetensors.numpy import load_file

from orchestrator.federation.orders import RunFolder, RunState
from orchestrator.federation.server_app import Task
from policies.wire.instructions import Instruction, Kind, StationReply
from station.agent.fleet import FleetConnection
from station.agent.messages import StillOnlineError

pytestmark = pytest.mark.superlink

ROUNDS = 3


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Federation]:
    with federation(tmp_path) as found:
        yield found


def _held_in_round_2(
    running: Federation,
) -> tuple[RunFolder, dict[str, PlainStation], threading.Event]:
    """A run whose second round waits for one of its stations until the event lets that answer."""
    go_on = threading.Event()

    def held(
        instruction: Instruction, reply: StationReply, arrays: bytes | None
    ) -> tuple[StationReply, bytes | None]:
        if (instruction.kind, instruction.round) == (Kind.TRAIN, 2):
            go_on.wait(300)
        return reply, arrays

    handlers = {name: PlainStation(number + 1, 10 * (number + 1)) for number, name in enumerate(NAMES)}
    handlers["berkel"].alter = held
    for name, handler in handlers.items():
        running.join(name, handler)
    folder = _accept(running)
    wait_until(lambda: folder.read_progress().round == 2, "round 2")
    return folder, handlers, go_on


def _accept(running: Federation) -> RunFolder:
    initial = weights()
    running.put_blob(initial)
    return running.accept(order(initial, rounds=ROUNDS))


def _assert_finished(running: Federation, folder: RunFolder) -> None:
    assert folder.read_progress().state is RunState.FINISHED
    rounds = folder.read_rounds()
    assert [entry["round"] for entry in rounds] == list(range(1, ROUNDS + 1))
    assert all(entry["took_part"] == list(NAMES) for entry in rounds)
    digest = rounds[-1]["weights"]["digest"].removeprefix("sha256:")
    final = load_file(running.blobs / "sha256" / digest)
    assert np.allclose(final["layer.bias"], ROUNDS * 14 / 6, rtol=1e-5)


def test_a_killed_server_app_goes_on_in_the_same_flower_run(running: Federation) -> None:
    folder, _, go_on = _held_in_round_2(running)
    pid = running.worker.server_app_pid(folder.order_digest)
    assert pid is not None
    kill(pid)
    go_on.set()
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    _assert_finished(running, folder)
    assert folder.read_progress().flower_runs == 1
    assert folder.read_progress().restarts == 1


def test_a_lost_lease_means_another_flower_run_from_the_checkpoint(running: Federation) -> None:
    folder, handlers, go_on = _held_in_round_2(running)
    task = Task.read(folder)
    assert task is not None
    assert (folder.task.stat().st_mode & 0o777) == 0o600
    control = running.superlink.control()
    control.stop_run(task.run_id)
    control.close()
    go_on.set()
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    _assert_finished(running, folder)
    assert folder.read_progress().flower_runs == 2
    # Round 1 was not asked for again, and no order was told over while another run carries it.
    assert sum(seen[:2] == ("train", 1) for seen in handlers["amstel"].seen) == 1


def test_a_killed_super_link_is_survived(running: Federation) -> None:
    folder, _, go_on = _held_in_round_2(running)
    pid = running.superlink.pid
    assert pid is not None
    kill(pid)
    go_on.set()
    wait_until(lambda: running.superlink.pid != pid, "another SuperLink")
    wait_until(lambda: folder.read_progress().state.is_over, "the order")
    _assert_finished(running, folder)
    assert folder.read_progress().flower_runs == 1


def test_a_killed_agent_comes_back_and_finishes_the_round(running: Federation) -> None:
    for number, name in enumerate(NAMES[1:], start=2):
        running.join(name, PlainStation(number, 10 * number))
    state = running.folder / "amstel-process"
    process = _agent_process(running, state)
    try:
        folder = _accept(running)
        wait_until((state / "waiting").exists, "round 2 at the station")
        kill(process.pid)
        process.wait()
        (state / "go").touch()
        process = _agent_process(running, state)
        wait_until(lambda: folder.read_progress().state.is_over, "the order")
    finally:
        process.terminate()
        process.wait()
    _assert_finished(running, folder)
    seen = [tuple(json.loads(line)) for line in (state / "seen.jsonl").read_text().splitlines()]
    # Taken up from its own store: the same message, not another attempt.
    assert [entry for entry in seen if entry[:2] == ("train", 2)][:2] == [("train", 2, 1), ("train", 2, 1)]
    assert list((state / "agent" / "messages").iterdir()) == []


def test_a_node_that_forgot_its_id_waits_until_it_counts_as_offline(running: Federation) -> None:
    address, ca, key = (
        running.superlink.address.url,
        running.superlink.files.ca,
        running.folder / "amstel.key",
    )
    first = FleetConnection(address, ca, key)
    node_id = first.activate()
    first.close()
    second = FleetConnection(address, ca, key)
    with pytest.raises(StillOnlineError):
        second.activate()
    # With its id it is back at once.
    second.resume(node_id)
    second.heartbeat()
    assert second.poll() == []
    second.close()


def _agent_process(running: Federation, state: Path) -> "subprocess.Popen[bytes]":
    here = Path(__file__).parent
    address = running.superlink.address.url
    command = [
        sys.executable,
        str(here / "agent_process.py"),
        address,
        str(running.superlink.files.ca),
        str(running.folder / "amstel.key"),
        str(state),
        "1",
        "10",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{here.parents[2]}{os.pathsep}{here}"}
    return subprocess.Popen(command, env=environment)
