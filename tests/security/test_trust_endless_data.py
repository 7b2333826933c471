"""The mirror answers with data that never ends, or that drips."""

import http.server
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from board_kit import NOW, BoardKit, https_server, refusal
from tuf.ngclient import FetcherInterface

from policies.refusals import RefusalCode
from policies.trust.fetch import HttpsFetcher


class Endless(FetcherInterface):
    def __init__(self) -> None:
        self.sent = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        while True:
            self.sent += 65536
            yield b"x" * 65536


def test_an_endless_answer_ends_at_the_ceiling(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    endless = Endless()
    assert refusal(board.client(fetcher=endless).refresh(NOW)) is RefusalCode.TRUST_UNVERIFIED
    assert endless.sent < 2 << 20


class Dripping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b" " * 1024)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


def test_a_dripping_answer_ends_at_the_deadline(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    with https_server(Dripping) as (address, authority):
        ca = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        fetcher = HttpsFetcher(ca, deadline_s=timedelta(0).total_seconds())
        client = board.client(mirror=address, fetcher=fetcher)
        assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_UNREACHABLE
