"""Records the protocol of the present version: a real orchestrator with its SuperLink, real agents, one of them through a recorder.

    PYTHONPATH=tests:tests/integration/orchestrator .venv/bin/python tests/contracts/protocol/record.py

Run once per released version, when its number is set; what it writes is committed. Replies are those of a whole station with its real
guard, in process (`station_kit`).
"""

import base64
import contextlib
import http.server
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
from board_kit import https_server
from exchanges import GOLDEN, KEPT_HEADERS, Exchange, Recording, packed
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
from safetensors.numpy import save
from statement_kit import statement
from station_documents import instruction, prepare
from station_kit import StationKit
from test_orchestrator_serve import free_port, run, serving
from tool_kit import make_bundle

from orchestrator.registry.access import Role
from orchestrator.services import open_services
from orchestrator.settings import Home
from policies.refusals import Permitted
from policies.signing import generate_key, load_signer
from policies.station_statement import sign_statement
from policies.tls import client_context
from policies.trust.client import PolicyClient
from policies.wire.instructions import Instruction, Kind, StationReply, Status, encode
from policies.wire.registry_client import RegistryClient
from station.agent import Agent, FleetConnection, Pace
from station.agent.blobs import BlobClient, blob_of
from station.images.orchestrator import OrchestratorBundles

PACE = Pace(fast_s=0.05, slow_s=0.3, idle_s=0.3, heartbeat_s=3.0, check_s=2.0, grace_s=5.0)
WEIGHTS = {"layer.weight": np.arange(18_000, dtype=np.float32)}
"""Over what a message holds, so that they travel by digest."""


class Handler:
    """A station of one line; keeps what it was told."""

    def __init__(self, blobs: BlobClient, folder: Path) -> None:
        self.blobs, self.folder = blobs, folder
        self.told: dict[str, str] = {}

    def handle(self, asked: Instruction, _arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        self.told.setdefault(asked.kind.value, encode(asked).decode())
        common = {
            "order_digest": asked.order_digest, "kind": asked.kind, "round": asked.round, "attempt": asked.attempt,
            "num_examples": 50,
        }  # fmt: skip
        if asked.kind in {Kind.PREPARE, Kind.FINISH}:
            status = Status.ACCEPTED if asked.kind is Kind.PREPARE else Status.FINISHED
            return StationReply(**common, status=status), None
        assert asked.weights is not None
        path = self.folder / "weights"
        self.blobs.fetch(asked.weights, path)
        if asked.kind is Kind.EVALUATE:
            return StationReply(**common, status=Status.RELEASED, metrics={"auc": 0.7}), None
        release = self.folder / "release"
        release.write_bytes(save({name: np.ones_like(each) for name, each in WEIGHTS.items()}))
        self.blobs.push(blob_of(release), release, asked.order_digest)
        return StationReply(
            **common, status=Status.RELEASED, metrics={"loss": 1.0}, release=blob_of(release)
        ), None

    def fault(self, asked: Instruction) -> StationReply:
        return StationReply(
            order_digest=asked.order_digest, kind=asked.kind, round=asked.round, attempt=asked.attempt,
            status=Status.FAILED, code="STATION_FAULT",
        )  # fmt: skip

    def run_over(self, order_digest: str) -> None:
        """Nothing is warm."""


@contextlib.contextmanager
def recorder(url: str, ca: Path) -> Iterator[tuple[str, bytes, list[Exchange]]]:
    """An HTTPS server that passes every request on to the orchestrator, and keeps both sides of it."""
    kept: list[Exchange] = []
    lock = threading.Lock()
    onward = httpx.Client(verify=client_context(ca), base_url=url, timeout=120, trust_env=False)

    class Passing(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            sent = {name.lower(): value for name, value in self.headers.items() if name.lower() != "host"}
            answer = onward.request(self.command, self.path, content=body, headers=sent)
            kept_headers = {name: value for name, value in answer.headers.items() if name in KEPT_HEADERS}
            with lock:
                kept.append(
                    Exchange(
                        self.command,
                        self.path,
                        {name: each for name, each in sent.items() if name in KEPT_HEADERS},
                        packed(body),
                        answer.status_code,
                        kept_headers,
                        packed(answer.content),
                    )
                )
            self.send_response(answer.status_code)
            for name, value in kept_headers.items():
                if name != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_HEAD = do_POST = do_PUT = _pass  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            return

    with https_server(Passing) as (address, authority):
        yield address, authority.cert_pem.bytes(), kept
    onward.close()


def few(exchanges: list[Exchange]) -> tuple[Exchange, ...]:
    """Leave out what says the same again: empty polls, heartbeats, confirmations."""
    found: list[Exchange] = []
    seen: dict[tuple[str, str, int, str], int] = {}
    for each in exchanges:
        quiet = each.is_fleet and len(each.came) < 24
        key = (
            each.method,
            each.target,
            each.status,
            each.answer if quiet or not each.is_fleet else str(len(found)),
        )
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 1:
            found.append(each)
    return tuple(found)


def real_replies(folder: Path) -> dict[str, str]:
    """What a whole station with its real guard answers."""
    found: dict[str, str] = {}

    def keep(name: str, reply: StationReply) -> None:
        found[name] = encode(reply).decode()

    kit = StationKit.make(folder / "one")
    envelope = kit.order()
    keep("prepare-pending", kit.service.handle(prepare(envelope), None)[0])
    keep("prepare-accepted", kit.prepare(envelope))
    keep("train-released", kit.message(envelope, Kind.TRAIN, 1)[0])
    keep("evaluate-released", kit.message(envelope, Kind.EVALUATE, 1)[0])
    keep("train-refused", kit.service.handle(instruction(kit.order(), Kind.TRAIN, 1), None)[0])
    later = instruction(envelope, Kind.TRAIN, 2).model_copy(update={"version": 2})
    keep("train-refused-version", kit.service.handle(later, None)[0])
    keep("train-failed", kit.service.fault(instruction(envelope, Kind.TRAIN, 2)))
    keep("finish-finished", kit.message(envelope, Kind.FINISH, 0)[0])
    held = kit.ready()
    kit.decide(held, "stop")
    keep("train-refused-stopped", kit.message(held, Kind.TRAIN, 1)[0])
    kit.close()
    return found


def real_run(  # noqa: PLR0915 - one story, told once
    folder: Path,
) -> tuple[list[Exchange], dict[str, str], dict[str, str], dict[str, object]]:
    """A run of one round over a real SuperLink; returns what one station exchanged, was told, and which blobs there were."""
    board_folder = folder / "board"
    board_folder.mkdir()
    board, keys = Board.found(board_folder), station_keys()
    (folder / "root.json").write_bytes(board.root)
    done = run("init", folder / "home", "--host", "localhost", "--port", free_port(), "--bind", "127.0.0.1",
               "--root", folder / "root.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    home = Home(folder / "home")
    for name in ("requester", *STATIONS):
        generate_key(folder / f"{name}.identity.pem")
    requester = load_signer(folder / "requester.identity.pem")
    identities = {name: load_signer(folder / f"{name}.identity.pem") for name in STATIONS}
    board.set_register(keys, identities={name: key.public_hex for name, key in identities.items()})
    (folder / "bundle").mkdir()
    train = make_bundle(folder / "bundle", manifest=MANIFEST.decode().partition("images:")[0])
    image = train.index.config.digest
    named = {"manifest_digest": train.index.manifest.digest}
    policy = board.add_policy(policy_yaml(requester.public_hex, image_config_digests=[image], **named))
    services = open_services(home)
    url = services.settings.url
    tokens = {role: services.access.new_token(role, role.value) for role in (Role.BOARD, Role.RESEARCHER)}
    services.close()
    with serving(home), recorder(url, home.ca_certificate) as (there, authority, kept):
        board.publish(f"{url}/api/v1/mirror", tokens[Role.BOARD], home.ca_certificate)
        (folder / "recorder.pem").write_bytes(authority)
        client = RegistryClient(url, home.ca_certificate, tokens[Role.RESEARCHER])
        for each in train.index.blobs():
            client.put_blob(train.store.path(each.digest))
        client.put_bundle("trivial", "1.0.0", train.index)
        (folder / "initial").write_bytes(save(WEIGHTS))
        client.put_blob(folder / "initial")
        agents, handlers = [], {}
        for name, key in keys.items():
            seen = name == STATIONS[0]
            where, ca = (there, folder / "recorder.pem") if seen else (url, home.ca_certificate)
            own = folder / name
            own.mkdir()
            blobs = BlobClient(where, ca, key)
            if seen:
                mirror = f"{where}/api/v1/mirror"
                PolicyClient.pin(own / "trust", board.root)
                assert isinstance(
                    PolicyClient(own / "trust", mirror, ca=ca).refresh(datetime.now(UTC)), Permitted
                )
                bundles = OrchestratorBundles(where, ca, key, blobs, own / "work")
                for layer in bundles.find(image).layers:
                    bundles.download(layer, own / "layer")
                bundles.close()
                with RegistryClient(where, ca, signer=key) as speaking:
                    speaking.put_statement(name, sign_statement(statement(1), identities[name]))
            handlers[name] = Handler(blobs, own)
            connection = FleetConnection(where, ca, write_key(key, folder / f"{name}.key"))
            agents.append(Agent(connection, handlers[name], own / "agent", PACE))
            agents[-1].start()
        wait_until(lambda: all(_seen(home)), 300, "the stations")
        digest = client.post_order(
            signed_order(requester, policy, save(WEIGHTS), rounds=1, image_config_digest=image, **named)
        )
        status = client.wait_run(digest, 600)
        assert status.progress.state == "finished", status
        wait_until(lambda: "finish" in handlers[STATIONS[0]].told, 60, "the last word")
        for agent in agents:
            agent.stop(10.0)
        client.close()
    blobs_kept = {blob.digest: base64.b64encode(train.store.path(blob.digest).read_bytes()).decode()
                  for blob in train.index.blobs()}  # fmt: skip
    facts: dict[str, object] = {
        "order": digest, "image": image, "root": board.root.decode(),
        "node_key": (folder / f"{STATIONS[0]}.key").read_text(), "station": STATIONS[0],
    }  # fmt: skip
    return kept, handlers[STATIONS[0]].told, blobs_kept, facts


def _seen(home: Home) -> list[object]:
    services = open_services(home)
    try:
        return [view.last_seen for view in services.stations.all()] or [None]
    finally:
        services.close()


def main() -> None:
    """Record, and write the version's folder."""
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="pht-record-") as made:
        moment = time.time()
        exchanges, told, blobs, facts = real_run(Path(made))
        # No such train answers tables; the form is the model's.
        told["analyse"] = encode(
            Instruction(kind=Kind.ANALYSE, order_digest=str(facts["order"]), round=1, deadline_s=60)
        ).decode()
        replies = real_replies(Path(made))
        recording = Recording(
            version=version("pht-radiology"), moment=moment, exchanges=few(exchanges), instructions=told,
            replies=replies, blobs=blobs, **facts,  # type: ignore[arg-type]
        )  # fmt: skip
        folder = recording.write(GOLDEN)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(recording.exchanges)} exchanges, {len(replies)} replies, {size} bytes")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
