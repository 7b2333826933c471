"""A peer that sends one byte at a time, in its headers or in its body, holds nobody: not the station, not the witness.

Each byte comes well within what a single wait may take, so only a deadline over the whole exchange ends it.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tuf.api.exceptions import DownloadError

from policies.errors import NetworkError
from policies.trust.fetch import HttpsFetcher
from policies.wire import steady
from policies.wire.instructions import Blob
from policies.wire.registry_client import RegistryClient
from station.agent import BlobClient, FleetConnection

KEY = ec.generate_private_key(ec.SECP256R1())
BLOB = Blob(digest="sha256:" + "5" * 64, size=1 << 20)
BYTES, PAUSE_S = 1500, 0.02
"""Thirty seconds of dripping; then the peer ends its answer well, and who waited for it has been held."""

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nX-Pad: "
BODY = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BYTES}\r\n\r\n".encode()


class Dripping:
    """An HTTPS server that answers every request with a start, and then with one byte after the other."""

    def __init__(self, folder: Path, begins: bytes) -> None:
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self._begins, self.over, self.held_to_the_end = begins, threading.Event(), False
        self._listening = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        self.url = f"https://localhost:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                continue
            try:
                with connection:
                    self._drip(connection)
            except OSError:
                continue

    def _drip(self, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(self._begins)
        for _ in range(BYTES):
            connection.sendall(b" ")
            if self.over.wait(PAUSE_S):
                return
        connection.sendall(b"\r\n\r\n{}")
        self.held_to_the_end = True

    def close(self) -> None:
        self.over.set()
        self._listening.close()


@pytest.fixture(params=[HEADERS, BODY], ids=["headers", "body"])
def peer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Dripping]:
    monkeypatch.setattr(steady, "EXCHANGE_S", 0.3)
    monkeypatch.setattr("station.agent.blobs._TRIES", 1)
    monkeypatch.setattr("station.agent.fleet._TRIES", 1)
    peer = Dripping(tmp_path, request.param)
    yield peer
    peer.close()


def ask_the_orchestrator(peer: Dripping, folder: Path) -> None:
    with RegistryClient(peer.url, peer.ca, token="x") as client:
        client.get_heads()


def read_the_mirror(peer: Dripping, folder: Path) -> None:
    for _ in HttpsFetcher(peer.ca)._fetch(f"{peer.url}/metadata/timestamp.json"):
        pass


def bring_the_mirror(peer: Dripping, folder: Path) -> None:
    """What the witness and the secretary do with each file: look whether it is there, then bring it."""
    from policies.trust.mirror import _put, _writer

    file = folder / "timestamp.json"
    file.write_text("{}")
    with _writer(peer.url, "x", peer.ca) as (client, base):
        _put(client, f"{base}/metadata/timestamp.json", file)


def fetch_weights(peer: Dripping, folder: Path) -> None:
    client = BlobClient(peer.url, peer.ca, KEY)
    try:
        client.fetch(BLOB, folder / "weights")
    finally:
        client.close()


def call_the_superlink(peer: Dripping, folder: Path) -> None:
    path = folder / "node.pem"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    connection = FleetConnection(peer.url, peer.ca, path)
    try:
        connection.activate()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "call", [ask_the_orchestrator, read_the_mirror, bring_the_mirror, fetch_weights, call_the_superlink]
)
def test_the_exchange_ends_before_the_peer_does(
    call: Callable[[Dripping, Path], None], peer: Dripping, tmp_path: Path
) -> None:
    with pytest.raises((NetworkError, DownloadError)):
        call(peer, tmp_path)
    assert not peer.held_to_the_end
