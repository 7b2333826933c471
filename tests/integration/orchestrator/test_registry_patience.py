"""The client waits as long as a busy orchestrator asks it to, and not for ever: against a server that counts."""

import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_kit import https_server

from policies.documents import digest_of
from policies.errors import NetworkError
from policies.wire import registry_connection
from policies.wire.registry_client import RegistryClient

BODY = b"a model " * 40_000


class Busy(http.server.BaseHTTPRequestHandler):
    """Says 429 `refusals` times, then answers."""

    protocol_version = "HTTP/1.1"
    refusals = 0
    retry_after = "0"
    busy_command = "GET"
    asked: list[str] = []  # noqa: RUF012 - of the class, so that a test can look
    received = b""

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _busy(self) -> bool:
        type(self).asked.append(self.command)
        if type(self).refusals == 0 or self.command != type(self).busy_command:
            return False
        type(self).refusals -= 1
        headers = {"Retry_After": self.retry_after} if self.retry_after else {}
        self._answer(429, b'{"title": "too many requests", "code": "TooManyRequestsError"}', **headers)
        return True

    def do_GET(self) -> None:
        if not self._busy():
            self._answer(200, b"[]")

    def do_HEAD(self) -> None:
        if not self._busy():
            self._answer(404, b"")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._busy():
            type(self).received = data
            body = f'{{"digest": "{digest_of(data)}", "size": {len(data)}, "complete": true}}'
            self._answer(201, body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RegistryClient, list[float]]]:
    waited: list[float] = []
    monkeypatch.setattr(registry_connection.time, "sleep", waited.append)
    Busy.asked, Busy.refusals, Busy.retry_after, Busy.received = [], 0, "0", b""
    Busy.busy_command = "GET"
    with https_server(Busy) as (address, authority):
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        with RegistryClient(address, tmp_path / "ca.pem", token="t") as found:
            yield found, waited


def test_it_waits_as_long_as_it_is_told(client: tuple[RegistryClient, list[float]]) -> None:
    registry, waited = client
    Busy.refusals, Busy.retry_after = 3, "7"
    assert registry.runs() == []
    assert waited == [7.0, 7.0, 7.0]
    assert Busy.asked == ["GET"] * 4


@pytest.mark.parametrize(
    ("said", "waits"), [("99999", 30.0), ("", 1.0), ("Sun, 22 Nov 2026", 1.0), ("-5", 1.0), ("²", 1.0)]
)
def test_what_it_is_told_is_bounded(
    client: tuple[RegistryClient, list[float]], said: str, waits: float
) -> None:
    registry, waited = client
    Busy.refusals, Busy.retry_after = 1, said.encode("utf-8").decode("latin-1")
    assert registry.runs() == []
    assert waited == [waits]


def test_it_does_not_wait_for_ever(client: tuple[RegistryClient, list[float]]) -> None:
    registry, waited = client
    Busy.refusals = 1000
    with pytest.raises(NetworkError, match="too many requests"):
        registry.runs()
    assert len(waited) == registry_connection.MAX_WAITS


def test_a_file_that_came_too_soon_is_sent_again_whole(
    client: tuple[RegistryClient, list[float]], tmp_path: Path
) -> None:
    registry, waited = client
    path = tmp_path / "model"
    path.write_bytes(BODY)

    Busy.busy_command = "PUT"
    Busy.refusals = 2
    assert registry.put_blob(path).complete
    assert Busy.received == BODY
    assert len(waited) == 2
    assert Busy.asked == ["HEAD", "PUT", "PUT", "PUT"]
