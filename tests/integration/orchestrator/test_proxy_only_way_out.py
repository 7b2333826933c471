"""A run of stations and a researcher in a network whose only way out is a proxy with a password, which is killed in between."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from orchestrator_site import (
    MANIFEST,
    STATIONS,
    Board,
    policy_yaml,
    signed_order,
    station_keys,
    wait_until,
    write_key,
)
from proxy_kit import PASSWORD, USER, Enclosed, RealProxy, enclosed_network, real_proxy
from safetensors.numpy import load_file, save
from test_orchestrator_serve import free_port, run, serving
from tool_kit import make_bundle

from orchestrator.registry.access import Role
from orchestrator.services import open_services
from orchestrator.settings import Home
from policies.signing import generate_key, load_signer
from policies.wire.registry_client import RegistryClient

pytestmark = [
    pytest.mark.superlink,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own is made as root"),
]
INSIDE = Path(__file__).with_name("proxied_stations.py")
VALUES = 40_000
"""Of float32: too many for a message, so that weights and releases travel by digest."""


@dataclass
class Stations:
    """The process with the three stations, and what it said."""

    process: "subprocess.Popen[str]"
    said: list[dict[str, object]] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, object]]:
        return [entry for entry in list(self.said) if entry["event"] == name]

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))


@contextmanager
def stations_in(network: Enclosed, arguments: dict[str, object]) -> Iterator[Stations]:
    with subprocess.Popen(
        [*network.entering(), sys.executable, str(INSIDE), json.dumps(arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        running = Stations(process)
        reading = threading.Thread(target=running.read, daemon=True)
        reading.start()
        try:
            yield running
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            reading.join(60)


def command_lines() -> str:
    """What any user of this machine can see of its processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(found)


@pytest.fixture
def home(tmp_path: Path) -> tuple[Home, Board]:
    (tmp_path / "board").mkdir()
    board = Board.found(tmp_path / "board")
    (tmp_path / "root.json").write_bytes(board.root)
    done = run(
        "init", tmp_path / "home", "--host", "localhost", "--port", free_port(), "--bind", "127.0.0.1",
        "--root", tmp_path / "root.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Home(tmp_path / "home"), board


def test_a_run_goes_through_the_proxy_and_over_its_death(home: tuple[Home, Board], tmp_path: Path) -> None:
    place, board = home
    keys = station_keys()
    (tmp_path / "bundle").mkdir()
    train = make_bundle(tmp_path / "bundle", manifest=MANIFEST.decode().partition("images:")[0])
    generate_key(tmp_path / "requester.pem")
    requester = load_signer(tmp_path / "requester.pem")
    board.set_register(keys)
    image = train.index.config.digest
    named = {"manifest_digest": train.index.manifest.digest}
    policy = board.add_policy(policy_yaml(requester.public_hex, image_config_digests=[image], **named))
    services = open_services(place)
    url, port = services.settings.url, services.settings.front.port
    tokens = {role: services.access.new_token(role, role.value) for role in (Role.BOARD, Role.RESEARCHER)}
    services.close()
    initial = save({"layer.weight": np.zeros(VALUES, np.float32)})
    secret = tmp_path / "proxy.credentials"
    secret.write_text(f"{USER}:{PASSWORD}\n")
    secret.chmod(0o600)

    with (
        enclosed_network() as network,
        real_proxy(tmp_path / "proxy", port, network.outside) as proxy,
        serving(place),
    ):
        board.publish(f"{url}/api/v1/mirror", tokens[Role.BOARD], place.ca_certificate)
        researcher = Researcher(
            network, _profile(tmp_path, url, place, tokens[Role.RESEARCHER], proxy, secret)
        )
        researcher("submit", train.path)
        arguments = {
            "folder": str(tmp_path), "ca": str(place.ca_certificate), "url": url, "proxy": proxy.url,
            "credentials": str(secret), "root": str(tmp_path / "root.json"), "image": image,
            "outside": network.outside, "port": port, "keys": _key_files(tmp_path, keys),
        }  # fmt: skip
        with stations_in(network, arguments) as stations:
            client = RegistryClient(url, place.ca_certificate, tokens[Role.RESEARCHER])
            (tmp_path / "initial").write_bytes(initial)
            client.put_blob(tmp_path / "initial")
            wait_until(lambda: all(_seen(place)), 120, "the stations' first contact")
            assert [entry["reached"] for entry in stations.events("direct")] == [False]
            assert [entry["permitted"] for entry in stations.events("policies")] == [True]
            assert [entry["bytes"] for entry in stations.events("image")] == [train.index.layers[0].size]
            digest = client.post_order(
                signed_order(requester, policy, initial, rounds=3, image_config_digest=image, **named)
            )
            wait_until(lambda: len(client.get_run(digest).rounds) >= 1, 120, "the first round")
            proxy.kill()
            wait_until(lambda: bool(_failures(stations)), 120, "a station that notices")
            proxy.start()
            status = client.wait_run(digest, 240)
            assert status.progress.state == "finished", f"{status.progress} {stations.said[-20:]}"
            assert [sorted(entry["took_part"]) for entry in status.rounds] == [sorted(STATIONS)] * 3
            researcher("results", digest, tmp_path / "result")
            assert PASSWORD not in command_lines()
            client.close()
    # Three rounds of the mean of 1, 2 and 3.
    model = load_file(tmp_path / "result" / "model.safetensors")
    np.testing.assert_allclose(model["layer.weight"], np.full(VALUES, 6.0), rtol=1e-6)
    assert set(proxy.asked()) == {f"localhost:{port}"}
    written = json.dumps(stations.said) + proxy.log + "".join(researcher.said)
    assert PASSWORD not in written
    assert PASSWORD not in "".join(path.read_text() for path in place.logs.glob("*"))


@dataclass
class Researcher:
    """`pht-train` in the same network."""

    network: Enclosed
    profile: Path
    said: list[str] = field(default_factory=list)

    def __call__(self, *arguments: object) -> None:
        done = subprocess.run(
            [*self.network.entering(), sys.executable, "-m", "train_images.cli", *map(str, arguments),
             "--profile", str(self.profile)],
            capture_output=True, text=True, timeout=120, check=False, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        self.said.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr


def _profile(folder: Path, url: str, place: Home, token: str, proxy: RealProxy, secret: Path) -> Path:
    (folder / "token").write_text(token)
    profile = folder / "pht-train.toml"
    keys = {
        "to": url, "token_file": "token", "ca": str(place.ca_certificate), "proxy": proxy.url,
        "proxy_credentials_file": secret.name,
    }  # fmt: skip
    profile.write_text("".join(f'{key} = "{value}"\n' for key, value in keys.items()))
    return profile


def _key_files(folder: Path, keys: dict[str, ec.EllipticCurvePrivateKey]) -> dict[str, str]:
    return {name: str(write_key(key, folder / f"{name}.key")) for name, key in keys.items()}


def _seen(place: Home) -> list[object]:
    services = open_services(place)
    try:
        return [view.last_seen for view in services.stations.all()] or [None]
    finally:
        services.close()


def _failures(stations: Stations) -> list[dict[str, object]]:
    return [
        entry
        for name in ("heartbeat_failed", "poll_failed", "answer_delayed", "connection_lost")
        for entry in stations.events(name)
    ]
