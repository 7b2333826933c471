"""The mirror sends stations elsewhere, asks them to speak plain HTTP, or shows a stranger's certificate."""

import http.server
from pathlib import Path

import pytest
import trustme
from board_kit import NOW, BoardKit, https_server, mirror_handler, refusal

from policies.errors import UsageError
from policies.refusals import RefusalCode


class Redirecting(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - one server, one test

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    with https_server(Redirecting) as (address, authority):
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        client = board.client(mirror=address, ca=tmp_path / "ca.pem")
        assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_UNREACHABLE
    assert Redirecting.asked
    assert "/elsewhere" not in Redirecting.asked


@pytest.mark.parametrize(
    "address", ["http://localhost", "ftp://localhost", "localhost:443", "file:///etc", ""]
)
def test_only_https_is_spoken(tmp_path: Path, address: str) -> None:
    from policies.trust.client import PolicyClient

    with pytest.raises(UsageError):
        PolicyClient(tmp_path, address)


def test_a_strangers_certificate_is_not_accepted(tmp_path: Path) -> None:
    board = BoardKit.found(tmp_path)
    board.publish()
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with https_server(mirror_handler(board.repository.folder)) as (address, _):
        client = board.client(mirror=f"{address}/mirror", ca=tmp_path / "other.pem")
        assert refusal(client.refresh(NOW)) is RefusalCode.TRUST_UNREACHABLE
