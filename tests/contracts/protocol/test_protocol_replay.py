"""Every recorded version against today's code: what an orchestrator said then to a station of today, what a station said then to one of today.

Golden files are never written anew. Where one of these fails, a model was changed in a way that the other side of an earlier version does
not understand: see policies/README.md, "Versions", for what may be changed, and how.
"""

import base64
import http.server
import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from board_kit import https_server
from exchanges import Exchange, Recording, recordings
from flwr.app import ConfigRecord
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from orchestrator_site import Site, site

from orchestrator.federation.superlink import FLEET_ROUTES
from orchestrator.federation.updates import find_update
from orchestrator.registry.access import Role, order_scope
from orchestrator.storage import OrderRow, OrderStationRow, StationRow
from policies.blobs import BlobFolder
from policies.bundle import BundleIndex
from policies.documents import canonical_json, digest_of
from policies.refusals import Permitted
from policies.station_statement import open_receipt
from policies.trust.client import PolicyClient
from policies.wire.http import key_fingerprint, load_private_key, openssh_public_key
from policies.wire.instructions import (
    BODY_KEY,
    Blob,
    Kind,
    StationReply,
    Status,
    decode_instruction,
    decode_reply,
    encode,
)
from policies.wire.registry_client import RegistryClient
from station.agent import Answer, FleetConnection, IncomingMessage
from station.agent.blobs import BlobClient
from station.images.orchestrator import OrchestratorBundles

VERSIONS = recordings()


@pytest.fixture(params=VERSIONS, ids=[path.name for path in VERSIONS])
def recorded(request: pytest.FixtureRequest) -> Recording:
    return Recording.read(request.param)


def test_there_are_recordings_and_they_are_small() -> None:
    assert VERSIONS
    for folder in VERSIONS:
        assert Recording.read(folder).version == folder.name
        assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000


def test_instructions_and_replies_are_read_and_written_as_they_were(recorded: Recording) -> None:
    assert {decode_instruction(text.encode()).kind for text in recorded.instructions.values()} == set(Kind)
    for text in recorded.instructions.values():
        assert encode(decode_instruction(text.encode())).decode() == text
    for name, text in recorded.replies.items():
        reply = decode_reply(text.encode())
        kind, status, *_ = name.split("-")
        assert (reply.kind.value, reply.status.value) == (kind, status)
        assert encode(reply).decode() == text
    told = {decode_reply(text.encode()).status for text in recorded.replies.values()}
    assert told >= set(Status) - {Status.WITHHELD, Status.STOPPED}


# -- what an orchestrator said then ----------------------------------------------------------------------------------


@contextmanager
def orchestrator_of(recorded: Recording, folder: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server that answers what the recorded orchestrator answered, in its order; the last answer again and again."""
    answers: dict[tuple[str, str], deque[Exchange]] = defaultdict(deque)
    for each in recorded.exchanges:
        answers[each.method, each.path].append(each)
    lock = threading.Lock()

    class Again(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            key = (self.command, self.path.partition("?")[0])
            with lock:
                left = answers.get(key)
                found = None if not left else left.popleft() if len(left) > 1 else left[0]
            status = 599 if found is None else found.status
            body = b"" if found is None else found.came
            self.send_response(status)
            for name, value in ({} if found is None else found.answer_headers).items():
                if name != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            return

    with https_server(Again) as (url, authority):
        ca = folder / "recorded-ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        (folder / "node.pem").write_text(recorded.node_key)
        (folder / "node.pem").chmod(0o600)
        yield url, ca


def test_a_station_of_today_takes_its_messages_from_an_orchestrator_of_then(
    recorded: Recording, tmp_path: Path
) -> None:
    with orchestrator_of(recorded, tmp_path) as (url, ca):
        connection = FleetConnection(url, ca, tmp_path / "node.pem")
        assert connection.activate() > 0
        connection.heartbeat()
        told: dict[str, IncomingMessage] = {}
        polls = sum(each.path.endswith("/pull-messages") for each in recorded.exchanges)
        for _ in range(polls):
            for message in connection.poll():
                assert message.body is not None
                instruction = decode_instruction(message.body)
                assert instruction.order_digest == recorded.order
                told.setdefault(instruction.kind.value, message)
        assert set(told) == {"prepare", "train", "evaluate", "finish"}
        for kind, message in told.items():
            assert (message.body or b"").decode() == recorded.instructions[kind]
            reply = StationReply(
                order_digest=recorded.order, kind=Kind(kind), round=decode_instruction(message.body or b"").round,
                status=Status.FAILED, code="STATION_FAULT",
            )  # fmt: skip
            connection.reply(Answer(message.reply_to, encode(reply), None, recorded.moment))
        connection.confirm(told["prepare"])
        over = [connection.run_is_over(told["prepare"].run_id) for _ in range(10)]
        assert over[0] is False
        assert over[-1] is True
        connection.close()


def test_a_station_of_today_takes_everything_else_from_an_orchestrator_of_then(
    recorded: Recording, tmp_path: Path
) -> None:
    with orchestrator_of(recorded, tmp_path) as (url, ca):
        key = load_private_key(tmp_path / "node.pem")
        PolicyClient.pin(tmp_path / "trust", recorded.root.encode())
        policies = PolicyClient(tmp_path / "trust", f"{url}/api/v1/mirror", ca=ca)
        assert isinstance(policies.refresh(datetime.fromtimestamp(recorded.moment, UTC)), Permitted)
        blobs = BlobClient(url, ca, key)
        bundles = OrchestratorBundles(url, ca, key, blobs, tmp_path / "work")
        for layer in bundles.find(recorded.image).layers:
            assert bundles.download(layer, tmp_path / "layer") == layer.size
        bundles.close()
        for each in recorded.exchanges:
            digest = each.path.rpartition("/")[2]
            if "/blobs/" not in each.path:
                continue
            path = tmp_path / digest[7:]
            if each.method == "GET":
                blobs.fetch(Blob(digest=digest, size=len(each.came)), path)
                assert path.read_bytes() == each.came
            elif each.method == "PUT":
                path.write_bytes(each.sent)
                blobs.push(Blob(digest=digest, size=len(each.sent)), path, recorded.order)
        blobs.close()
        with RegistryClient(url, ca, signer=key) as client:
            (stated,) = [each for each in recorded.exchanges if each.path.endswith("/statement")]
            answer = client.put_statement(recorded.station, stated.sent)
            assert open_receipt(answer.receipt.encode(), answer.notary_key).station == recorded.station


# -- what a station said then ----------------------------------------------------------------------------------------


@pytest.fixture
def today(
    recorded: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Site, SimpleNamespace]]:
    """An orchestrator of today that has what the recorded one had; its clock for signatures is the test's."""
    clock = SimpleNamespace(now=recorded.moment, time=lambda: clock.now)
    monkeypatch.setattr("orchestrator.portal.auth.time", clock)
    (tmp_path / "node.pem").write_text(recorded.node_key)
    public = load_private_key(tmp_path / "node.pem").public_key()
    with site(tmp_path / "site") as place:
        store = BlobFolder(place.home.blobs)
        for each in recorded.exchanges:
            name = each.path.rpartition("/")[2]
            if "/mirror/" in each.path and each.status == 200:
                path = place.home.mirror / each.path.partition("/mirror/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(each.came)
            elif each.method == "GET" and "/blobs/" in each.path:
                store.put_bytes(each.came, expect=name)
                place.services.access.grant(name, order_scope(recorded.order))
        alice = place.client(Role.RESEARCHER)
        for digest, text in recorded.blobs.items():
            (tmp_path / digest[7:]).write_bytes(base64.b64decode(text))
            alice.put_blob(tmp_path / digest[7:])
        (found,) = [each for each in recorded.exchanges if "/by-image/" in each.path]
        index = BundleIndex.decode(canonical_json(json.loads(found.came)["bundles"][0]))
        alice.put_bundle("trivial", "1.0.0", index)
        with place.services.database.transaction() as session:
            session.add(
                StationRow(
                    name=recorded.station,
                    organisation="A hospital",
                    identity_key=_identity(recorded),
                    node_key=openssh_public_key(public).decode(),
                    key_fingerprint=key_fingerprint(public),
                    register_version=1,
                )
            )
            session.add(_order(recorded))
            session.flush()
            session.add(OrderStationRow(order_digest=recorded.order, station=recorded.station))
        yield place, clock


def _order(recorded: Recording) -> OrderRow:
    envelope = json.loads(json.loads(recorded.instructions["prepare"])["order"])
    order = json.loads(base64.b64decode(envelope["payload"]))
    return OrderRow(
        digest=recorded.order,
        order_id=order["order_id"],
        policy_id=order["policy_id"],
        policy_version=order["policy_version"],
        requester="researcher:alice",
        accepted=datetime.fromtimestamp(recorded.moment, UTC),
    )


def _identity(recorded: Recording) -> str:
    """The station's identity key out of the recorded register."""
    for each in recorded.exchanges:
        if "/mirror/targets/" in each.path and each.status == 200:
            document = yaml.safe_load(base64.b64decode(json.loads(each.came)["payload"]))
            for station in document.get("stations", []) if "board" in document else []:
                if isinstance(station, dict) and station["name"] == recorded.station:
                    return str(station["identity_key"])
    raise AssertionError("no register was recorded")


def test_an_orchestrator_of_today_answers_a_station_of_then(
    recorded: Recording, today: tuple[Site, SimpleNamespace]
) -> None:
    place, clock = today
    with place.raw() as raw:
        for each in recorded.exchanges:
            if each.is_fleet:
                continue
            clock.now = float(each.headers.get("pht-timestamp", recorded.moment))
            headers = {name: value for name, value in each.headers.items() if name != "content-length"}
            answer = raw.request(each.method, each.target, headers=headers, content=each.sent)
            assert answer.status_code == each.status, (each.method, each.target, answer.content[:300])
            if each.method == "GET" and each.status == 200 and "/by-image/" not in each.path:
                assert digest_of(answer.content) == digest_of(each.came), each.target
    assert find_update(place.home.blobs, recorded.station, _released(recorded)) is not None


def _released(recorded: Recording) -> str:
    return next(
        each.path.rpartition("/")[2]
        for each in recorded.exchanges
        if each.method == "PUT" and "/blobs/" in each.path
    )


def test_a_station_of_then_is_let_through_to_the_superlink_and_its_replies_are_read(
    recorded: Recording,
) -> None:
    fleet = [each for each in recorded.exchanges if each.is_fleet]
    assert {each.target for each in fleet} <= set(FLEET_ROUTES)
    replies = []
    for each in fleet:
        if each.path.endswith("/push-object"):
            content = PushObjectRequest.FromString(each.sent).object_content
            try:
                body = ConfigRecord.inflate(content)[BODY_KEY]
            except UnexpectedObjectContentError:
                continue
            assert isinstance(body, bytes)
            replies.append(decode_reply(body))
            assert encode(replies[-1]) == body
    assert replies
