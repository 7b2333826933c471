"""A board for tests: real keys, a real TUF repository in a folder, its witness, and an attacker's own tools."""

import http.server
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
import yaml

from policies.charter import POLICY_PAYLOAD_TYPE, REGISTER_PAYLOAD_TYPE, Charter, Member
from policies.documents import format_moment
from policies.purposes import PURPOSES_PAYLOAD_TYPE
from policies.refusals import Permitted, RefusalCode, Refused
from policies.signing import Signer, add_signature, generate_key, load_signer, sign_envelope
from policies.trust.client import PolicyClient
from policies.trust.policy_set import PolicySet
from policies.trust.repository import BoardRepository
from policies.trust.root import RootPlan
from policies.trust.witness import Witness

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
ROLES = {"alice": "clinician", "bob": "lawyer", "carol": "patient-representative"}
EXAMPLE = Path(__file__).parents[1] / "policies" / "examples" / "cxr-classification.yaml"
PURPOSES = EXAMPLE.with_name("purposes.yaml")


def example_policy(changes: Mapping[str, object] | None = None) -> bytes:
    """The shipped example as YAML bytes, with values changed by dotted path; None removes a key."""
    document = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    document |= {
        "valid_from": format_moment(NOW - timedelta(days=1)),
        "valid_until": format_moment(NOW + timedelta(days=100)),
    }
    for path, value in (changes or {}).items():
        *folders, last = path.split(".")
        place = document
        for name in folders:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return yaml.safe_dump(document, sort_keys=False).encode()


def register_yaml(version: int = 1, *names: str) -> bytes:
    """A register of stations."""
    stations = [
        {
            "name": name,
            "organisation": name.title(),
            "country": "NL",
            "identity_key": "ab" * 32,
            "node_key": "ecdsa-sha2-nistp384 AAAA",
            "agreement": {"reference": "Annex 1", "expires": "2099-12-31"},
        }
        for name in names or ("amstel", "berkel")
    ]
    document = {"schema_version": 1, "board": "thorax-board", "version": version, "stations": stations}
    return yaml.safe_dump(document).encode()


@dataclass
class BoardKit:
    """Three members (threshold 2, clinician and patient representative required), secretary, witness."""

    folder: Path
    keys: dict[str, Signer]
    charter: Charter
    plan: RootPlan
    repository: BoardRepository
    witness: Witness

    @classmethod
    def found(cls, folder: Path, **charter_changes: object) -> "BoardKit":
        """Found a board whose root is in force."""
        keys = {}
        for name in (*ROLES, "secretary", "witness", "requester", "developer", "stranger"):
            generate_key(folder / "keys" / f"{name}.pem")
            keys[name] = load_signer(folder / "keys" / f"{name}.pem")
        members = tuple(
            Member(name=name.title(), organisation="UMC", role=role, key=keys[name].public_hex)  # type: ignore[arg-type]
            for name, role in ROLES.items()
        )
        charter = Charter.model_validate(
            {
                "schema_version": 1,
                "board": "thorax-board",
                "title": "Thorax board",
                "members": members,
                "threshold": 2,
                "required_roles": ("clinician", "patient-representative"),
                "development_keys": (keys["developer"].public_hex,),
                **charter_changes,
            }
        )
        plan = RootPlan(charter, 2, keys["secretary"].public_hex, keys["witness"].public_hex)
        repository = BoardRepository.create(
            folder / "repository", plan, [keys["alice"], keys["carol"]], now=NOW
        )
        return cls(
            folder, keys, charter, plan, repository, Witness(folder / "repository", keys["witness"], 3600)
        )

    def policy(self, version: int = 1, changes: Mapping[str, object] | None = None) -> bytes:
        """A policy file of this board; changes by dotted path."""
        requester = {"requester.key": self.keys["requester"].public_hex, "version": version}
        return example_policy(requester | dict(changes or {}))

    def signed(self, payload: bytes, *names: str, payload_type: str = POLICY_PAYLOAD_TYPE) -> bytes:
        """An envelope signed by the named people."""
        first, *others = names or ("alice", "carol")
        envelope = sign_envelope(payload, payload_type, self.keys[first])
        for name in others:
            envelope = add_signature(envelope, self.keys[name])
        return envelope

    def signed_register(self, version: int = 1, *names: str) -> bytes:
        """A register that two members signed."""
        return self.signed(
            register_yaml(version, *names), "alice", "carol", payload_type=REGISTER_PAYLOAD_TYPE
        )

    def signed_purposes(self, version: int = 1, changes: Mapping[str, object] | None = None) -> bytes:
        """The shipped table of purposes, signed by two members; changes by key."""
        document = yaml.safe_load(PURPOSES.read_text("utf-8")) | {"version": version} | dict(changes or {})
        return self.signed(
            yaml.safe_dump(document).encode(), "alice", "carol", payload_type=PURPOSES_PAYLOAD_TYPE
        )

    def publish(self, *policies: bytes, now: datetime = NOW) -> None:
        """Add signed policies, publish as the secretary, and have the witness vouch."""
        for envelope in policies:
            self.repository.add_policy(envelope)
        self.repository.publish(self.keys["secretary"], now=now)
        self.witness.sign_once(now)

    def publish_unchecked(self, listing: Mapping[str, bytes], now: datetime = NOW) -> None:
        """What a hostile secretary can do: list anything, with the real key, past our own checks."""
        self.repository._write_listing(dict(listing), self.keys["secretary"], now)
        self.witness.sign_once(now)

    def client(
        self, name: str = "station", mirror: Path | str | None = None, **options: object
    ) -> PolicyClient:
        """A reader that has pinned this board's root."""
        trust = self.folder / name
        if not (trust / "root.json").exists():
            PolicyClient.pin(trust, self.repository.root.pinnable())
        return PolicyClient(trust, mirror or self.repository.folder, **options)  # type: ignore[arg-type]


def permitted(result: Permitted[PolicySet] | Refused) -> PolicySet:
    """The policy set of a refresh that must succeed."""
    assert isinstance(result, Permitted), result
    return result.value


def refusal(result: Permitted[object] | Refused) -> RefusalCode:
    """The code of a decision that must be a refusal."""
    assert isinstance(result, Refused), result
    return result.code


@contextmanager
def https_server(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[tuple[str, trustme.CA]]:
    """A real HTTPS server on an ephemeral port of this machine; yields its address and its authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}", authority
        finally:
            server.shutdown()
            thread.join(120)


def mirror_handler(folder: Path, token: str = "") -> type[http.server.BaseHTTPRequestHandler]:
    """A mirror below ``/mirror``: everyone reads, whoever has the token writes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _file(self) -> Path:
            return folder / self.path.removeprefix("/mirror/")

        def _answer(self, code: int, body: bytes = b"") -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self._file().is_file():
                self._answer(200, self._file().read_bytes())
            else:
                self._answer(404)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not token or self.headers["Authorization"] != f"Bearer {token}":
                self._answer(401)
                return
            self._file().parent.mkdir(parents=True, exist_ok=True)
            self._file().write_bytes(body)
            self._answer(204)

        def log_message(self, *_: object) -> None:
            return

    return Handler


@contextmanager
def connect_proxy() -> Iterator[tuple[str, list[str]]]:
    """A real HTTP proxy that tunnels with CONNECT; yields its address and what it was asked for."""
    asked: list[str] = []

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split()[1].decode()
            asked.append(target)
            while self.rfile.readline().strip():
                continue
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as far:
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                while True:
                    for ready in select.select([self.connection, far], [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        (far if ready is self.connection else self.connection).sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join(120)
