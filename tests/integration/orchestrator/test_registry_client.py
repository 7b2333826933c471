"""The client against servers that are absent, strange or hostile."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, RefusedError, TrustError, UsageError, WireError
from policies.tls import create_ca, issue_server_certificate
from policies.wire.registry_client import MAX_ANSWER_BYTES, RegistryClient

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def server(folder: Path, answer: Answer) -> Iterator[tuple[str, Path]]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _reply  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Quiet."""

    authority = create_ca("test")
    authority.write(folder / "ca.pem", folder / "ca.key")
    issue_server_certificate(authority, ["localhost"]).write(folder / "server.pem", folder / "server.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{httpd.server_address[1]}", folder / "ca.pem"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((307, {"Location": "https://elsewhere.example/"}, b""), UsageError),
        ((200, {}, b"not json"), WireError),
        ((200, {}, b'{"digest": 1}'), WireError),
        ((200, {}, b"x" * (MAX_ANSWER_BYTES + 1)), WireError),
        ((401, {}, b""), TrustError),
        ((404, {}, b"<html>"), NotFoundError),
        ((503, {}, b""), NetworkError),
        ((409, {}, json.dumps({"code": "ORDER_SPENT", "title": "spent"}).encode()), RefusedError),
        ((409, {}, json.dumps({"code": "MADE_UP", "title": "x" * 10_000}).encode()), UsageError),
    ],
)
def test_a_strange_answer_is_an_error_of_ours(tmp_path: Path, answer: Answer, error: type[Exception]) -> None:
    with server(tmp_path, answer) as (url, ca), RegistryClient(url, ca, "token") as client:
        with pytest.raises(error) as found:
            client.get_run(digest_of(b"x"))
        assert len(str(found.value)) < 600


def test_a_blob_larger_than_allowed_is_cut_off(tmp_path: Path) -> None:
    with server(tmp_path, (200, {}, b"x" * 5000)) as (url, ca), RegistryClient(url, ca, "token") as client:
        with pytest.raises(WireError, match="more than 4999"):
            client.get_blob(digest_of(b"x" * 5000), tmp_path / "blob", max_bytes=4999)
        assert not (tmp_path / "blob").exists()


def test_a_blob_that_is_another_is_not_kept(tmp_path: Path) -> None:
    with server(tmp_path, (200, {}, b"other")) as (url, ca), RegistryClient(url, ca, "token") as client:
        with pytest.raises(WireError, match="not the one"):
            client.get_blob(digest_of(b"wanted"), tmp_path / "blob")
        assert not list(tmp_path.glob("blob*"))


def test_nobody_there_is_a_network_error(tmp_path: Path) -> None:
    create_ca("test").write(tmp_path / "ca.pem", tmp_path / "ca.key")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{probe.getsockname()[1]}"
        with (
            RegistryClient(url, tmp_path / "ca.pem") as client,
            pytest.raises(NetworkError, match="does not answer"),
        ):
            client.get_metadata("timestamp.json")


def test_another_authority_is_not_spoken_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    create_ca("ours").write(tmp_path / "ca.pem", tmp_path / "ca.key")
    with (
        server(tmp_path / "theirs", (200, {}, b"{}")) as (url, _),
        RegistryClient(url, tmp_path / "ca.pem", "secret") as client,
        pytest.raises(NetworkError),
    ):
        client.runs()


def test_plain_http_and_two_proofs_are_refused(tmp_path: Path) -> None:
    create_ca("test").write(tmp_path / "ca.pem", tmp_path / "ca.key")
    with pytest.raises(UsageError, match="https"):
        RegistryClient("http://localhost", tmp_path / "ca.pem")
