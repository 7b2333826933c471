"""The whole orchestrator as its operator starts it: `serve`, a real SuperLink, station agents through the front."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
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
from safetensors.numpy import load as load_arrays
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from orchestrator.federation.ports import free_port
from orchestrator.home_lock import is_held
from orchestrator.registry.access import Role
from orchestrator.services import open_services
from orchestrator.settings import Home
from policies.documents import digest_of, digest_of_file
from policies.errors import ExitCode, NetworkError, RefusedError
from policies.signing import generate_key, load_signer
from policies.tls import CertificateAuthority, issue_server_certificate
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status
from policies.wire.registry_client import RegistryClient
from station.agent import Agent, FleetConnection, Pace
from train_images.tool.results import fetch_result

pytestmark = pytest.mark.superlink
_Answer = TypeVar("_Answer")
PACE = Pace(fast_s=0.02, slow_s=0.1, idle_s=0.1, heartbeat_s=2.0, check_s=1.0, grace_s=2.0)


def program(*arguments: object) -> list[str]:
    code = "from orchestrator.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(program(*arguments), capture_output=True, text=True, timeout=180, check=False)


@contextmanager
def serving(home: Home) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        program("serve", home.path, "--json"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert json.loads(line)["event"] == "ready"
            yield process
        finally:
            process.terminate()
            process.wait(180)


def descendants(home: Path) -> list[int]:
    """Processes that have this home in their command line, or a parent that has."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(home) in command:
                found.append(int(entry.name))
    return found


class TrivialStation:
    """Adds its number to every weight."""

    def __init__(self, number: int) -> None:
        self.number = number

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        common = {
            "order_digest": instruction.order_digest,
            "kind": instruction.kind,
            "round": instruction.round,
            "attempt": instruction.attempt,
            "num_examples": 50,
        }
        if instruction.kind in {Kind.PREPARE, Kind.FINISH}:
            status = Status.ACCEPTED if instruction.kind is Kind.PREPARE else Status.FINISHED
            return StationReply(**common, status=status), None
        if instruction.kind is Kind.EVALUATE:
            return StationReply(**common, status=Status.RELEASED, metrics={"auc": 0.7}), None
        inbound = load_arrays(arrays or b"")
        delta = save_arrays({name: np.full_like(value, self.number) for name, value in inbound.items()})
        blob = Blob(digest=digest_of(delta), size=len(delta))
        reply = StationReply(**common, status=Status.RELEASED, metrics={"loss": 1.0}, release=blob)
        return reply, delta

    def fault(self, instruction: Instruction) -> StationReply:
        return StationReply(
            order_digest=instruction.order_digest,
            kind=instruction.kind,
            round=instruction.round,
            attempt=instruction.attempt,
            status=Status.FAILED,
            code="STATION_FAULT",
        )

    def run_over(self, order_digest: str) -> None:
        """Nothing to stop."""


@pytest.fixture
def board(tmp_path: Path) -> Board:
    (tmp_path / "board").mkdir()
    return Board.found(tmp_path / "board")


@pytest.fixture
def home(tmp_path: Path, board: Board) -> Home:
    (tmp_path / "root.json").write_bytes(board.root)
    result = run(
        "init", tmp_path / "home", "--host", "localhost", "--port", free_port(), "--bind", "127.0.0.1",
        "--root", tmp_path / "root.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return Home(tmp_path / "home")


def test_an_order_runs_to_its_result_over_kills_of_the_superlink_and_of_everything(
    home: Home, board: Board, tmp_path: Path
) -> None:
    keys = station_keys()
    generate_key(tmp_path / "requester.pem")
    requester = load_signer(tmp_path / "requester.pem")
    board.set_register(keys)
    policy_digest = board.add_policy(policy_yaml(requester.public_hex))
    services = open_services(home)
    url = services.settings.url
    tokens = {role: services.access.new_token(role, role.value) for role in (Role.BOARD, Role.RESEARCHER)}
    services.close()

    with serving(home) as process:
        board.publish(f"{url}/api/v1/mirror", tokens[Role.BOARD], home.ca_certificate)
        agents = [_agent(tmp_path, home, url, name, number, keys) for number, name in enumerate(STATIONS, 1)]
        client = RegistryClient(url, home.ca_certificate, tokens[Role.RESEARCHER])
        try:
            send_bundle(client, tmp_path)
            (tmp_path / "initial").write_bytes(weights())
            client.put_blob(tmp_path / "initial")
            order = signed_order(requester, policy_digest, weights(), rounds=5)
            wait_until(lambda: all(_seen(home).values()), 180, "the stations' first contact")
            digest = client.post_order(order)
            with pytest.raises(RefusedError, match="given already"):
                client.post_order(order)
            wait_until(lambda: len(client.get_run(digest).rounds) >= 1, 180, "the first round")
            os.kill(
                next(pid for pid in descendants(home.path) if _is(pid, "flower-superlink")), signal.SIGKILL
            )
            wait_until(lambda: len(client.get_run(digest).rounds) >= 2, 180, "a round over another SuperLink")
            os.kill(process.pid, signal.SIGKILL)
            process.wait(180)
            wait_until(lambda: not descendants(home.path), 180, "the children's end")
            with serving(home):
                status = client.wait_run(digest, 240)
                assert status.progress.state == "finished", status
                files = fetch_result(client, digest, tmp_path / "result")
                # Config, layer, manifest, initial and final weights: nothing of the rounds between stays.
                wait_until(
                    lambda: len(list((home.blobs / "sha256").iterdir())) == 5, 120, "the end of old weights"
                )
            seen = {
                view["name"]: view["last_seen"]
                for view in json.loads(run("station", "list", home.path, "--json").stdout)
            }
        finally:
            for agent in agents:
                agent.stop(5.0)
            client.close()
    assert sorted(seen) == sorted(STATIONS)
    assert all(seen.values())
    _check_result({each.name: tmp_path / "result" / each.name for each in files}, digest)


def _seen(home: Home) -> dict[str, str | None]:
    services = open_services(home)
    try:
        return {view.name: view.last_seen and view.last_seen.isoformat() for view in services.stations.all()}
    finally:
        services.close()


def _check_result(files: dict[str, Path], digest: str) -> None:
    model = load_file(files["model.safetensors"])
    # Five rounds of the mean of 1, 2 and 3.
    np.testing.assert_allclose(model["layer.bias"], np.full(3, 10.0), rtol=1e-6)
    metrics = json.loads(files["metrics.json"].read_bytes())
    assert [entry["round"] for entry in metrics["rounds"]] == [1, 2, 3, 4, 5]
    assert metrics["final"]["evaluate"]["auc"] == pytest.approx(0.7)
    assert files["metrics.png"].read_bytes().startswith(b"\x89PNG")
    statement = json.loads(files["provenance.json"].read_bytes())
    subjects = {entry["name"]: "sha256:" + entry["digest"]["sha256"] for entry in statement["subject"]}
    assert subjects["model.safetensors"] == digest_of_file(files["model.safetensors"])
    assert statement["predicate"]["order"]["digest"] == digest
    assert {name: entry["rounds"] for name, entry in statement["predicate"]["stations"].items()} == {
        name: [1, 2, 3, 4, 5] for name in STATIONS
    }


def _agent(
    folder: Path, home: Home, url: str, name: str, number: int, keys: dict[str, EllipticCurvePrivateKey]
) -> Agent:
    connection = FleetConnection(url, home.ca_certificate, write_key(keys[name], folder / f"{name}.key"))
    agent = Agent(connection, TrivialStation(number), folder / name, PACE)
    agent.start()
    return agent


def test_a_child_that_is_killed_comes_back(home: Home) -> None:
    with serving(home):
        front = [pid for pid in descendants(home.path) if _is(pid, "orchestrator.front")]
        os.kill(front[0], signal.SIGKILL)
        services = open_services(home)
        url, token = services.settings.url, services.access.new_token(Role.OPERATOR, "o")
        services.close()
        # The socket is the supervisor's: a connection waits for the next front instead of being refused. How long that
        # one takes to start is the machine's, and may be longer than a client's patience for one handshake.
        with RegistryClient(url, home.ca_certificate, token) as client:
            assert _patiently(client.runs) == []


def _patiently(ask: "Callable[[], _Answer]") -> "_Answer":
    deadline = time.monotonic() + 300
    while True:
        try:
            return ask()
        except NetworkError as error:
            if "ConnectTimeout" not in error.message or time.monotonic() > deadline:
                raise


def _is(pid: int, module: str) -> bool:
    return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_it_stops_cleanly_and_alone_on_its_home(home: Home) -> None:
    with serving(home) as process:
        assert is_held(home)
        second = run("serve", home.path)
        assert second.returncode == ExitCode.USAGE, second.stderr
        assert "already" in second.stderr
        process.terminate()
        assert process.wait(180) == 0
    assert not descendants(home.path)
    assert not is_held(home)


def test_a_port_in_use_says_so(home: Home) -> None:
    services = open_services(home)
    port = services.settings.front.port
    services.close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        result = run("serve", home.path, "--json")
    assert result.returncode == ExitCode.UNAVAILABLE
    assert f"port {port}" in json.loads(result.stderr)["error"]["message"]


def test_an_expired_certificate_says_so(home: Home) -> None:
    authority = CertificateAuthority.read(home.ca_certificate, home.tls / "ca.key")
    issue_server_certificate(authority, ["localhost"], life=timedelta(seconds=0)).write(
        home.server_certificate, home.server_key
    )
    result = run("serve", home.path, "--json")
    assert result.returncode == ExitCode.TRUST
    error = json.loads(result.stderr)["error"]
    assert "expired on" in error["message"]
    assert "renew-certificate" in error["hint"]
    assert run("renew-certificate", home.path).returncode == 0


def test_an_unknown_setting_is_named(home: Home) -> None:
    text = home.settings_file.read_text()
    home.settings_file.write_text(text.replace("[limits]", "[limits]\nblob_gib = 3"))
    result = run("status", home.path, "--json")
    assert result.returncode == ExitCode.DOCUMENT
    assert "limits.blob_gib" in json.loads(result.stderr)["error"]["message"]


def test_init_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text("{}")
    result = run(
        "init", tmp_path / "home", "--host", "localhost", "--port", 1, "--root", tmp_path / "root.json"
    )
    assert result.returncode == ExitCode.TRUST
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root.json"]


def test_the_operators_commands_say_what_is_wrong(home: Home, board: Board, tmp_path: Path) -> None:
    assert run("runs", "show", home.path, "abc").returncode == ExitCode.NOT_FOUND
    assert json.loads(run("runs", "list", home.path, "--json").stdout) == []
    assert "does not verify" in json.loads(run("status", home.path, "--json").stdout)["mirror"]
    token = json.loads(run("token", "new", home.path, "--role", "board", "--name", "b", "--json").stdout)[
        "token"
    ]
    assert token.startswith("pht_")
    assert run("token", "new", home.path, "--role", "station", "--name", "s").returncode == ExitCode.USAGE
    assert run("token", "revoke", home.path, "--role", "board", "--name", "b").returncode == 0
    assert (
        run("token", "revoke", home.path, "--role", "board", "--name", "b").returncode == ExitCode.NOT_FOUND
    )
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "other.json").write_bytes(Board.found(other).root)
    assert run("pin-root", home.path, tmp_path / "other.json").returncode == ExitCode.TRUST
    assert run("pin-root", home.path, tmp_path / "root.json").returncode == 0
    assert board.root == (home.trust / "root.json").read_bytes()
