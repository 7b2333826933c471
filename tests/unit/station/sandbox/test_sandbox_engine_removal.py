"""A container that ends at the very moment of its removal: engines refuse once, and it is removed all the same."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from policies.errors import UnavailableError
from station.sandbox.engine import api
from station.sandbox.engine.api import Engine


class Ending(BaseHTTPRequestHandler):
    """An engine that refuses a removal as often as its server says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, {"ApiVersion": "1.41"})

    def do_DELETE(self) -> None:
        refusals: list[int] = self.server.refusals  # type: ignore[attr-defined]
        if refusals:
            refusals.pop()
            self._answer(500, {"message": "container state improper: stopped"})
        else:
            self._answer(204, None)

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, content: object) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def engine(folder: Path, refusals: int) -> Iterator[tuple[Engine, list[int]]]:
    path = folder / "e.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Ending) as server:
        server.daemon_threads = True
        server.refusals = [0] * refusals  # type: ignore[attr-defined]
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield Engine(path), server.refusals  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("refusals", [0, 2])
def test_a_refusal_is_not_the_last_word(tmp_path: Path, refusals: int) -> None:
    with engine(tmp_path, refusals) as (asked, left):
        asked.remove("one")
        assert left == []


def test_one_that_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_REMOVE_S", 0.0)
    with engine(tmp_path, 2) as (asked, left):
        with pytest.raises(UnavailableError):
            asked.remove("one")
        assert left == [0]
