"""A real OCI registry (Debian's docker-registry) with TLS and users, a relay that breaks connections, and a registry that lies."""

import contextlib
import http.server
import re
import select
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from board_kit import https_server

from policies.wire.oci_auth import Credentials
from station.images.registry.client import RegistryClient
from station.images.registry.source import RegistrySource

REPOSITORY = "pht/trains"
USER, PASSWORD = "station", "train-secret"
# bcrypt of PASSWORD, cost 5.
_HASHED = "$2y$05$abcdefghijklmnopqrstuuNr1u18VCJQ2tUjqAhA3jJpL3p75hzwS"
CREDENTIALS = Credentials(USER, PASSWORD)


@dataclass
class Registry:
    """One that runs.

    Attributes:
        url: its address.
        ca: the authority behind its certificate.
        root: where it keeps what it has.
        log: what it wrote, a line per request.
    """

    url: str
    ca: Path
    root: Path
    log: list[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(
        self, url: str | None = None, *, repository: str = REPOSITORY, **more: object
    ) -> RegistryClient:
        settings: dict[str, object] = {"ca": self.ca, "credentials": CREDENTIALS, **more}
        return RegistryClient(url or self.url, repository, **settings)  # type: ignore[arg-type]

    def blob(self, digest: str) -> Path:
        hexadecimal = digest.removeprefix("sha256:")
        return self.root / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


@contextlib.contextmanager
def running_registry(folder: Path) -> Iterator[Registry]:
    """Run a registry on an ephemeral port until the end of the block."""
    authority = trustme.CA()
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    (folder / "htpasswd").write_text(f"{USER}:{_HASHED}\n")
    (folder / "registry.yml").write_text(
        f"""
version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http:
  addr: 127.0.0.1:0
  secret: only-for-a-test
  tls: {{certificate: {folder}/certificate.pem, key: {folder}/key.pem}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""
    )
    log: list[str] = []
    with subprocess.Popen(
        ["docker-registry", "serve", str(folder / "registry.yml")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            port = _listening(process, log)
            assert process.stdout is not None
            reading = threading.Thread(target=log.extend, args=(process.stdout,), daemon=True)
            reading.start()
            yield Registry(f"https://localhost:{port}", ca, folder / "data", log)
        finally:
            process.kill()
            process.wait(60)
            reading.join(60)


@contextlib.contextmanager
def plain_registry(folder: Path) -> Iterator[int]:
    """Run a registry without TLS or users, as engines take them on this machine's own address; gives its port."""
    (folder / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        "http: {addr: '127.0.0.1:0', secret: only-for-a-test}\n"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", str(folder / "registry.yml")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        log: list[str] = []
        try:
            port = _listening(process, log)
            reading = threading.Thread(target=log.extend, args=(process.stdout,), daemon=True)
            reading.start()
            yield port
        finally:
            process.kill()
            process.wait(60)
            reading.join(60)


def _listening(process: subprocess.Popen[str], log: list[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        log.append(line)
        if found := re.search(r"listening on 127\.0\.0\.1:([0-9]+)", line):
            return int(found[1])
    raise AssertionError(log)


@dataclass
class Relay:
    """Passes bytes between a client and a server.

    Attributes:
        port: where it listens.
        passed: bytes that came from the server.
        limit: with so many passed, the connection ends (or stands still).
        stalls: stand still instead.
        stopped: set when the limit was reached.
    """

    port: int = 0
    passed: int = 0
    limit: int | None = None
    stalls: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    """Yield a relay in front of a server of this machine."""
    relay = Relay()
    over = threading.Event()

    class Passing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as far:
                while True:
                    for ready in select.select([self.request, far], [], [])[0]:
                        data = ready.recv(16384)
                        if not data:
                            return
                        if ready is far:
                            relay.passed += len(data)
                            if relay.limit is not None and relay.passed > relay.limit:
                                relay.stopped.set()
                                if relay.stalls:
                                    over.wait(300)
                                else:
                                    relay.limit = None
                                return
                        (far if ready is self.request else self.request).sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Passing) as server:
        server.daemon_threads = True
        relay.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            over.set()
            server.shutdown()
            thread.join(60)


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class LyingRegistry:
    """One that answers what a test wrote for the end of each address."""

    url: str
    ca: Path
    answers: Mapping[str, Answer | bytes] = field(default_factory=dict)

    @contextlib.contextmanager
    def source(self, answers: Mapping[str, Answer | bytes], **more: object) -> Iterator[RegistrySource]:
        """Yield it as a source, with these answers."""
        self.answers = answers
        client = RegistryClient(self.url, REPOSITORY, **{"ca": self.ca, **more})  # type: ignore[arg-type]
        try:
            yield RegistrySource(client)
        finally:
            client.close()


@contextlib.contextmanager
def lying_registry(folder: Path) -> Iterator[LyingRegistry]:
    """Run one until the end of the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            target = self.path.partition("?")[0]
            for end, answer in running.answers.items():
                if target.endswith(end):
                    if callable(answer):
                        answer(self)
                    else:
                        say(self, answer)
                    return
            say(self, b"", 404)

        def log_message(self, *_: object) -> None:
            return

    with https_server(Handler) as (url, authority):
        running = LyingRegistry(url, folder / "lying.pem")
        authority.cert_pem.write_to_path(str(running.ca))
        yield running


def say(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """Answer a request."""
    handler.send_response(status)
    sent = {
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    for name, value in sent.items():
        handler.send_header(name, value)
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(body)
