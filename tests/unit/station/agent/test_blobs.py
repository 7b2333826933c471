"""Blobs against a real HTTPS server with a real CA: resumed, verified, bounded, never redirected."""

import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, WireError
from policies.wire.http import key_fingerprint, verify_request
from policies.wire.instructions import Blob
from station.agent import BlobClient, blob_of

KEY = ec.generate_private_key(ec.SECP256R1())
ORDER = "sha256:" + "5" * 64
DATA = bytes(range(256)) * 5000


@dataclass
class Store:
    """What the server holds and how it misbehaves."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    partial: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    break_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirect_to: str | None = None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def _begin(self) -> str | None:
        digest = urlsplit(self.path).path.rsplit("/", 1)[1]
        fingerprint, self.body_digest = verify_request(
            self.command, self.path, dict(self.headers), now=time.time()
        )
        if fingerprint != key_fingerprint(KEY.public_key()):
            raise ValueError("another key")
        self.store.requests.append(
            (self.command, self.path, self.headers.get("range") or self.headers.get("content-range"))
        )
        if self.store.redirect_to is not None:
            return self._end(307, headers={"location": self.store.redirect_to})
        if self.command != "HEAD" and self.store.statuses:
            return self._end(self.store.statuses.pop(0))
        return digest

    def _end(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "content-length" not in (headers or {}):
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        digest = self._begin()
        if digest is None:
            return
        if digest in self.store.blobs:
            self._end(200, headers={"content-length": str(len(self.store.blobs[digest]))})
        else:
            self._end(404, headers={"PHT-Received": str(len(self.store.partial.get(digest, b"")))})

    def do_GET(self) -> None:
        digest = self._begin()
        if digest is None:
            return
        data = self.store.blobs.get(digest)
        if data is None:
            self._end(404)
            return
        start, status, headers = 0, 200, {}
        if wanted := self.headers.get("range"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            status = 206
            headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers["content-length"] = str(len(data) - start)
        body = data[start:]
        if self.store.break_after:
            body = body[: self.store.break_after.pop(0)]
            self.close_connection = True
        self._end(status, body, headers)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        digest = self._begin()
        if digest is None:
            return
        if digest_of(body) != self.body_digest:
            self._end(400)
            return
        whole = self.store.partial.pop(digest, b"") + body if self.headers.get("content-range") else body
        if digest_of(whole) == digest:
            self.store.blobs[digest] = whole
            self._end(201)
        else:
            self._end(400)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[tuple[str, Store]]:
    store = Store()
    handler = type("BoundHandler", (Handler,), {"store": store})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{httpd.server_port}", store
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def client(server: tuple[str, Store], authority: trustme.CA, tmp_path: Path) -> Iterator[BlobClient]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    blobs = BlobClient(server[0], tmp_path / "ca.pem", KEY)
    yield blobs
    blobs.close()


def _blob(data: bytes = DATA) -> Blob:
    return Blob(digest=digest_of(data), size=len(data))


def test_a_blob_is_fetched_whole(server: tuple[str, Store], client: BlobClient, tmp_path: Path) -> None:
    server[1].blobs[digest_of(DATA)] = DATA
    client.fetch(_blob(), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == DATA
    assert blob_of(tmp_path / "weights") == _blob()
    assert not (tmp_path / "weights.part").exists()


def test_a_fetch_that_breaks_off_goes_on_where_it_was(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    server[1].blobs[digest_of(DATA)] = DATA
    server[1].break_after = [300_000, 400_000]
    client.fetch(_blob(), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == DATA
    ranges = [wanted for method, _, wanted in server[1].requests if method == "GET"]
    assert ranges == [None, "bytes=300000-", "bytes=700000-"]


def test_bytes_of_an_earlier_life_are_used(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    server[1].blobs[digest_of(DATA)] = DATA
    (tmp_path / "weights.part").write_bytes(DATA[:1000])
    client.fetch(_blob(), tmp_path / "weights")
    assert server[1].requests[0][2] == "bytes=1000-"


def test_what_is_there_already_is_not_fetched_again(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    server[1].blobs[digest_of(DATA)] = DATA
    client.fetch(_blob(), tmp_path / "weights")
    client.fetch(_blob(), tmp_path / "weights")
    assert len(server[1].requests) == 1
    (tmp_path / "weights").write_bytes(DATA[:-1] + b"?")
    client.fetch(_blob(), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == DATA


def test_wrong_bytes_are_refused_and_dropped(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    server[1].blobs[digest_of(DATA)] = DATA[:-1] + b"!"
    with pytest.raises(WireError):
        client.fetch(_blob(), tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
    assert not (tmp_path / "weights.part").exists()


def test_more_bytes_than_announced_are_refused(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    server[1].blobs[digest_of(DATA)] = DATA + b"more"
    with pytest.raises(WireError):
        client.fetch(_blob(), tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_an_absent_blob_and_a_refusal_have_their_own_errors(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        client.fetch(_blob(), tmp_path / "weights")
    server[1].statuses = [403]
    with pytest.raises(NetworkError):
        client.fetch(_blob(), tmp_path / "weights")


def test_a_redirect_is_not_followed(server: tuple[str, Store], client: BlobClient, tmp_path: Path) -> None:
    server[1].redirect_to = "https://localhost:1/elsewhere"
    with pytest.raises(NetworkError):
        client.fetch(_blob(), tmp_path / "weights")
    (tmp_path / "release").write_bytes(DATA)
    with pytest.raises(NetworkError):
        client.push(_blob(), tmp_path / "release", ORDER)


def test_a_server_of_another_authority_is_not_spoken_to(server: tuple[str, Store], tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    client = BlobClient(server[0], tmp_path / "other.pem", KEY)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(NetworkError):
        client.fetch(_blob(), tmp_path / "weights")
    assert server[1].requests == []


def test_a_release_is_pushed_for_its_order_once(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    (tmp_path / "release").write_bytes(DATA)
    client.push(_blob(), tmp_path / "release", ORDER)
    client.push(_blob(), tmp_path / "release", ORDER)
    assert server[1].blobs == {digest_of(DATA): DATA}
    puts = [path for method, path, _ in server[1].requests if method == "PUT"]
    assert puts == [f"/api/v1/blobs/{digest_of(DATA)}?order={ORDER}"]


def test_a_push_goes_on_from_what_was_received(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    (tmp_path / "release").write_bytes(DATA)
    server[1].partial[digest_of(DATA)] = DATA[:123_456]
    client.push(_blob(), tmp_path / "release", ORDER)
    assert server[1].blobs == {digest_of(DATA): DATA}
    assert server[1].requests[-1][2] == f"bytes 123456-{len(DATA) - 1}/{len(DATA)}"


def test_a_passing_fault_is_tried_again(
    server: tuple[str, Store], client: BlobClient, tmp_path: Path
) -> None:
    (tmp_path / "release").write_bytes(DATA)
    server[1].statuses = [503]
    client.push(_blob(), tmp_path / "release", ORDER)
    assert digest_of(DATA) in server[1].blobs
