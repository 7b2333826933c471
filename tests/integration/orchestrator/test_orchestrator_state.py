"""The whole orchestrator and its state: a backup while it serves, a home from it, a PostgreSQL that dies and comes back."""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from orchestrator_site import (
    STATIONS,
    Board,
    policy_yaml,
    send_bundle,
    signed_order,
    station_keys,
    wait_until,
    weights,
    write_key,
)
from postgres_kit import PostgresServer, postgres
from safetensors.numpy import load_file
from test_orchestrator_serve import PACE, TrivialStation, descendants, free_port, program, run, serving

from orchestrator.federation.orders import RunFolder
from orchestrator.registry.access import Role
from orchestrator.services import open_services
from orchestrator.settings import Home
from policies.documents import digest_of_file
from policies.errors import ExitCode
from policies.signing import generate_key, load_signer
from policies.tls import client_context
from policies.wire.instructions import Instruction, Kind, StationReply, Status
from policies.wire.registry_client import RegistryClient
from station.agent import Agent, FleetConnection
from train_images.tool.results import fetch_result

pytestmark = pytest.mark.superlink

ROUNDS = 5


@dataclass
class RecordingStation(TrivialStation):
    """Answers as a station does: what was released is sent again as it was, also of a finished order, which does nothing else.

    A round that is not `open` yet is worked on until it is.
    """

    number: int
    open: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    computed: list[tuple[str, int]] = field(default_factory=list)
    recorded: dict[tuple[str, str, int], tuple[StationReply, bytes | None]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        key = (instruction.order_digest, instruction.kind.value, instruction.round)
        if (
            instruction.order_digest in self.finished
            and instruction.kind is not Kind.FINISH
            and key not in self.recorded
        ):
            spent = self.fault(instruction).model_copy(
                update={"status": Status.REFUSED, "code": "ORDER_SPENT"}
            )
            return spent, None
        if instruction.kind is Kind.FINISH:
            self.finished.add(instruction.order_digest)
        if instruction.kind in {Kind.PREPARE, Kind.FINISH}:
            return super().handle(instruction, arrays)
        if key not in self.recorded:
            if instruction.kind is Kind.TRAIN:
                self.open.acquire()
            self.computed.append(key[1:])
            self.recorded[key] = super().handle(instruction, arrays)
        reply, out = self.recorded[key]
        return reply.model_copy(update={"attempt": instruction.attempt}), out


@dataclass
class World:
    """A consortium whose stations are here, and whose orchestrator's programs come and go."""

    folder: Path
    home: Home
    board: Board
    url: str
    policy_digest: str
    handlers: dict[str, RecordingStation]
    agents: list[Agent] = field(default_factory=list)
    _clients: list[RegistryClient] = field(default_factory=list)

    def client(self, role: Role, home: Home | None = None) -> RegistryClient:
        services = open_services(home or self.home)
        token = services.access.new_token(role, role.value)
        services.close()
        self._clients.append(RegistryClient(self.url, self.home.ca_certificate, token))
        return self._clients[-1]

    def open_rounds(self, number: int) -> None:
        for handler in self.handlers.values():
            handler.open.release(number)

    def order(self) -> str:
        """Publish, send the train, and give an order; its digest."""
        services = open_services(self.home)
        token = services.access.new_token(Role.BOARD, "secretary")
        services.close()
        self.board.publish(f"{self.url}/api/v1/mirror", token, self.home.ca_certificate)
        keys = {path.stem: path for path in self.folder.glob("node-*.pem")}
        for name, handler in self.handlers.items():
            connection = FleetConnection(self.url, self.home.ca_certificate, keys[f"node-{name}"])
            self.agents.append(Agent(connection, handler, self.folder / name, PACE))
            self.agents[-1].start()
        client = self.client(Role.RESEARCHER)
        send_bundle(client, self.folder)
        (self.folder / "initial").write_bytes(weights())
        client.put_blob(self.folder / "initial")
        requester = load_signer(self.folder / "requester.pem")
        wait_until(
            lambda: all(view["node_id"] for view in self._stations()), 90, "the stations' registration"
        )
        return client.post_order(signed_order(requester, self.policy_digest, weights(), rounds=ROUNDS))

    def _stations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(run("station", "list", self.home.path, "--json").stdout)
        return found

    def close(self) -> None:
        self.open_rounds(100)
        for agent in self.agents:
            agent.stop(5.0)
        for client in self._clients:
            client.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    board, keys = Board.found(tmp_path), station_keys()
    generate_key(tmp_path / "requester.pem")
    for name, key in keys.items():
        write_key(key, tmp_path / f"node-{name}.pem")
    board.set_register(keys)
    policy_digest = board.add_policy(policy_yaml(load_signer(tmp_path / "requester.pem").public_hex))
    (tmp_path / "root.json").write_bytes(board.root)
    made = run(
        "init", tmp_path / "home", "--host", "localhost", "--port", free_port(), "--bind", "127.0.0.1",
        "--root", tmp_path / "root.json", "--json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    handlers = {name: RecordingStation(number) for number, name in enumerate(STATIONS, 1)}
    url = json.loads(made.stdout)["url"]
    found = World(tmp_path, Home(tmp_path / "home"), board, url, policy_digest, handlers)
    try:
        yield found
    finally:
        found.close()


def _rounds(home: Home, digest: str) -> list[dict[str, Any]]:
    return RunFolder(home.run_folder(digest)).read_rounds()


def _kill_all(process: "subprocess.Popen[str]", home: Home) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    wait_until(lambda: not descendants(home.path), 60, "the children's end")


def test_a_run_goes_on_from_a_backup_with_what_stations_released_since(world: World) -> None:
    backup = world.folder / "backup"
    with serving(world.home) as process:
        digest = world.order()
        world.open_rounds(2)
        wait_until(lambda: len(_rounds(world.home, digest)) == 2, 120, "two rounds")
        # While it serves, in the middle of a round.
        made = run("backup", world.home.path, backup, "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["orders"] == 1
        world.open_rounds(2)
        wait_until(lambda: len(_rounds(world.home, digest)) == 4, 120, "two rounds that the backup lacks")
        _kill_all(process, world.home)
    lost = _rounds(world.home, digest)
    computed = {name: list(handler.computed) for name, handler in world.handlers.items()}
    # The disk is gone; the restored home takes its place.
    world.home.path.rename(world.folder / "gone")
    restored = run("restore", backup, world.home.path)
    assert restored.returncode == 0, restored.stderr
    assert "tokens" in restored.stdout
    assert len(_rounds(world.home, digest)) == 2
    client = world.client(Role.RESEARCHER)
    with serving(world.home):
        wait_until(lambda: len(_rounds(world.home, digest)) == 4, 300, "the same two rounds again")
        assert {name: handler.computed for name, handler in world.handlers.items()} == computed
        world.open_rounds(1)
        status = client.wait_run(digest, 300)
        assert status.progress.state == "finished", status
        files = {
            each.name: world.folder / "result" / each.name
            for each in fetch_result(client, digest, world.folder / "result")
        }
        said = json.loads(run("status", world.home.path, "--json").stdout)
    # Rounds 3 and 4 are what they were: the same weights, byte for byte.
    after = _rounds(world.home, digest)
    assert [entry["weights"] for entry in after[:4]] == [entry["weights"] for entry in lost]
    model = load_file(files["model.safetensors"])
    np.testing.assert_allclose(model["layer.bias"], np.full(3, 2.0 * ROUNDS), rtol=1e-6)
    assert digest_of_file(files["model.safetensors"]) == after[-1]["weights"]["digest"]
    for handler in world.handlers.values():
        assert sorted(handler.computed) == sorted(
            (kind, number) for kind in ("evaluate", "train") for number in range(1, ROUNDS + 1)
        ), "nothing was computed, so nothing released, twice"
    assert said["restored"].startswith("from the backup of ")
    assert "publish again" in said["restored"]
    _a_run_that_ended_since_is_collected_again(world, backup, digest, after)


def _a_run_that_ended_since_is_collected_again(
    world: World, backup: Path, digest: str, ended: list[dict[str, Any]]
) -> None:
    """The same backup once more, now that the run is finished at the stations: the same model, and nothing is computed."""
    computed = {name: list(handler.computed) for name, handler in world.handlers.items()}
    shutil.rmtree(world.home.path)
    assert run("restore", backup, world.home.path, "--json").returncode == 0
    assert len(_rounds(world.home, digest)) == 2
    with serving(world.home):
        client = world.client(Role.RESEARCHER)
        status = client.wait_run(digest, 300)
        assert (status.progress.state, status.progress.missing) == ("finished", {})
        fetch_result(client, digest, world.folder / "again")
    assert [entry["weights"] for entry in _rounds(world.home, digest)] == [
        entry["weights"] for entry in ended
    ]
    again = world.folder / "again" / "model.safetensors"
    assert digest_of_file(again) == ended[-1]["weights"]["digest"]
    assert {name: handler.computed for name, handler in world.handlers.items()} == computed
    shown = run("restored", world.home.path, "--done")
    assert shown.returncode == 0
    assert run("restored", world.home.path).returncode == ExitCode.NOT_FOUND


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres() as found:
        yield found


@contextmanager
def _asking(world: World) -> Iterator[httpx.Client]:
    services = open_services(world.home)
    token = services.access.new_token(Role.OPERATOR, "operator")
    services.close()
    with httpx.Client(
        base_url=f"{world.url}/api/v1", verify=client_context(world.home.ca_certificate), trust_env=False,
        headers={"authorization": f"Bearer {token}"}, timeout=60,
    ) as client:  # fmt: skip
        yield client


def test_a_postgresql_that_dies_is_a_delay(world: World, server: PostgresServer) -> None:
    moved = run("database", "move", world.home.path, "--to", server.url)
    assert moved.returncode == 0, moved.stderr
    with serving(world.home), _asking(world) as client:
        digest = world.order()
        world.open_rounds(1)
        wait_until(lambda: len(_rounds(world.home, digest)) == 1, 120, "a round")
        server.kill()
        away = client.get("/runs")
        assert (away.status_code, away.headers["retry-after"]) == (503, "3")
        assert away.json()["code"] == "UnavailableError"
        assert "password" not in away.text
        world.open_rounds(ROUNDS)
        server.start()
        wait_until(lambda: client.get("/runs").status_code == 200, 60, "the API")
        status = world.client(Role.RESEARCHER).wait_run(digest, 180)
        assert status.progress.state == "finished", status
        # Another orchestrator does not get this database.
        other = world.folder / "other"
        made = run("init", other, "--host", "localhost", "--port", free_port(), "--bind", "127.0.0.1")
        assert made.returncode == 0, made.stderr
        second = subprocess.run(
            program("serve", other, "--json"), capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "PHT_ORCHESTRATOR_DATABASE_URL": server.url},
        )  # fmt: skip
        assert second.returncode == ExitCode.USAGE
        assert "another orchestrator" in json.loads(second.stderr)["error"]["message"]
    _a_start_waits(world, server)


def _a_start_waits(world: World, server: PostgresServer) -> None:
    server.kill()
    with subprocess.Popen(
        program("serve", world.home.path, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        try:
            said = process.stderr.readline()
            assert said.startswith("waiting: PostgreSQL")
            assert "does not answer" in said
            server.start()
            assert json.loads(process.stdout.readline())["event"] == "ready"
        finally:
            process.terminate()
            process.wait(60)
