"""DICOMweb against a real Orthanc, and against a server that does its worst."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pacs_kit import PASSWORD, USER, Certificates, Orthanc, wait_until
from pacs_station import (
    COLLECTION,
    IN_THE_MIDDLE,
    DeskKit,
    IntakeProcess,
    desk_kit,
    handed_over,
    radiograph,
    study,
)
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from policies.errors import StateError
from station.intake.sources import dicomweb, web_link
from station.intake.sources.pacs_faults import PacsError, PacsFault
from station.intake.sources.queries import StudyCriteria
from station.settings.dicom import PacsSettings, ReceiverSettings

Serve = Callable[..., IntakeProcess]
TOKEN = "a-token-of-this-test"


def web_settings(home: Path, port: int, **changes: Any) -> PacsSettings:
    """Orthanc's DICOMweb on loopback, with its password in a file of the station's folder."""
    home.mkdir(parents=True, exist_ok=True)
    secret = home.parent / "pacs.password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    settings: dict[str, Any] = {
        "name": "main",
        "host": "127.0.0.1",
        "port": port,
        "method": "dicomweb",
        "web_user": USER,
        "web_password_file": str(secret),
        "tls": "none",
        "studies_per_minute": 100_000,
        "instances_per_minute": 1_000_000,
        "backoff_s": 0.2,
        "backoff_longest_s": 0.5,
        "timeout_s": 20,
        "attempts": 2,
    }
    return PacsSettings(**{**settings, **changes})


def accessions(*numbers: int) -> bytes:
    return "\n".join(f"ACC{number:05d}" for number in numbers).encode()


@contextmanager
def desk(home: Path, settings: PacsSettings) -> Iterator[DeskKit]:
    with desk_kit(home, ReceiverSettings(), settings) as kit:
        yield kit


def received(kit: DeskKit) -> int:
    """How many instances are held when everything in the spool is processed."""
    for name in kit.intake.recover():
        if name not in kit.accepted:
            kit.accepted.append(name)
    kit.process()
    return kit.intake.status().instances


def test_one_missing_accession_costs_that_one(home: Path, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "pacs") as pacs:
        for number in (1, 2, 4):
            pacs.add(*study(number, 3))
        settings = web_settings(home, pacs.http_port)
        with desk(home, settings) as kit:
            kit.desk.echo("main")
            report = kit.finished(
                kit.desk.retrieve_accessions("main", COLLECTION, accessions(1, 2, 3, 4)).job
            )
            assert (report.state.value, report.items) == ("finished", {"retrieved": 3, "missing": 1})
            assert (report.reasons, report.expected, report.received) == ({"not-found": 1}, 9, 9)
            wait_until(lambda: bool(kit.accepted), "the batch")
            assert received(kit) == 9
            again = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
            assert again.received == 3
            wait_until(lambda: bool(kit.accepted), "the second batch")
            assert received(kit) == 9, "again is idempotent"
            assert len(set(handed_over(kit.paths))) == 9


def test_by_query(home: Path, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "pacs") as pacs:
        for number in range(5):
            pacs.add(*study(number, 2))
        day = dcmread(BytesIO(radiograph(1))).StudyDate
        when = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        with desk(home, web_settings(home, pacs.http_port)) as kit:
            assert kit.desk.query("main", StudyCriteria(when, when, ("DX", "CR"))) == 5
            assert (
                kit.desk.query(
                    "main", StudyCriteria(when.replace(year=1999), when.replace(year=1999), ("DX",))
                )
                == 0
            )
            job = kit.desk.retrieve_studies("main", COLLECTION, StudyCriteria(when, when, ("DX", "CR"))).job
            assert kit.finished(job).received == 10


def test_killed_in_the_middle_both_sides_go_on(serve: Serve, home: Path, tmp_path: Path) -> None:
    count = 40
    with Orthanc(tmp_path / "pacs") as pacs:
        for number in range(count):
            pacs.add(*study(number, 2))
        settings = web_settings(home, pacs.http_port, attempts=100, studies_per_minute=IN_THE_MIDDLE)
        service = serve(ReceiverSettings(), settings)
        job = service.retrieve([f"ACC{number:05d}" for number in range(count)])["job"]
        wait_until(lambda: service.retrieval(job)["items"].get("retrieved", 0) >= 5, "the first five")
        pacs.kill()
        assert service.retrieval(job)["state"] == "running"
        pacs.start()
        wait_until(lambda: service.retrieval(job)["items"].get("retrieved", 0) >= 15, "some more")
        service.kill()
        service.start()
        report = service.finished(job)
        assert report["items"] == {"retrieved": count}
        wait_until(lambda: service.instances() == 2 * count, "the batches")
        assert service.stop() == 0
    found = handed_over(service.paths)
    assert len(found) == len(set(found)) == 2 * count
    log = service.log.read_text()
    assert not [value for value in ("Testpatient", "ACC00001", "1.2.826.0.1.7", PASSWORD) if value in log]


def test_a_wrong_password_stops_the_retrieval_and_costs_no_item(home: Path, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "pacs") as pacs:
        pacs.add(*study(1, 1))
        settings = web_settings(home, pacs.http_port)
        (home.parent / "pacs.password").write_text("wrong")
        with desk(home, settings) as kit:
            report = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
            assert (report.state.value, report.reason) == ("stopped", "not-authorised")
            assert report.items == {"pending": 1}


def test_a_password_that_others_may_read_is_not_used(home: Path) -> None:
    settings = web_settings(home, 1)
    (home.parent / "pacs.password").chmod(0o644)
    with desk(home, settings) as kit, pytest.raises(StateError, match="others may read"):
        kit.desk.echo("main")


# -- a server that does its worst ----------------------------------------------------------------------------------

BOUNDARY = "here"
CONTENT = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
Send = Callable[["Worst"], None]


@dataclass
class Server:
    """Answers searches honestly with one study of one series, and a retrieval with what the test says."""

    send: Send
    instances: int = 2
    seen: list[str] = field(default_factory=list)
    authorisation: set[str | None] = field(default_factory=set)
    gone: threading.Event = field(default_factory=threading.Event)


class Worst(BaseHTTPRequestHandler):
    """One request."""

    server: "_Http"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.what.seen.append(self.path)
        self.server.what.authorisation.add(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        try:
            if path.count("/") == 2:
                self.answer(
                    [{"0020000D": ui("1.2.826.0.1.7.1.2"), "00080050": {"vr": "SH", "Value": ["ACC00001"]}}]
                )
            elif path.endswith("/series"):
                self.answer(
                    [{
                        "0020000D": ui("1.2.826.0.1.7.1.2"),
                        "0020000E": ui("1.2.826.0.1.7.1.3"),
                        "00080060": {"vr": "CS", "Value": ["DX"]},
                        "00201209": {"vr": "IS", "Value": [self.server.what.instances]},
                    }]
                )  # fmt: skip
            else:
                self.server.what.send(self)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.server.what.gone.set()
        self.close_connection = True

    def answer(self, document: object) -> None:
        """A search's answer."""
        body = json.dumps(document).encode()
        self.start(("Content-Type", "application/dicom+json"), ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def start(self, *headers: tuple[str, str], status: int = 200) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def part(self, body: bytes, *headers: str, content_type: str = "application/dicom") -> None:
        """One part."""
        head = "\r\n".join((f"--{BOUNDARY}", f"Content-Type: {content_type}", *headers))
        self.wfile.write(head.encode() + b"\r\n\r\n" + body + b"\r\n")

    def end(self) -> None:
        """The end of the parts."""
        self.wfile.write(f"--{BOUNDARY}--\r\n".encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, what: Server, tls: Certificates | None) -> None:
        super().__init__(("127.0.0.1", 0), Worst)
        self.what = what
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """Nothing: the peer hangs up on it."""


@contextmanager
def serving(what: Server, tls: Certificates | None = None) -> Iterator[int]:
    """Listen on a port of loopback."""
    server = _Http(what, tls)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ui(uid: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [uid]}


def image(number: int = 0, **elements: str) -> bytes:
    return radiograph(1, **{"SOPInstanceUID": f"1.2.826.0.1.7.1.1.{number}", **elements})


def honest(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    for number in range(2):
        reply.part(image(number))
    reply.end()


def endless(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    number = 0
    while True:
        reply.part(image(number))
        number += 1


def the_same_again(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    for _ in range(2):
        reply.part(image())
    reply.end()


def wrong_boundary(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT.replace(BOUNDARY, "there")))
    reply.part(image())
    reply.end()


def no_multipart(reply: Worst) -> None:
    reply.start(("Content-Type", "application/dicom"))
    reply.wfile.write(image())


def no_end(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(image(0))
    reply.wfile.write(f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + image(1)[:2000])


def elsewhere(reply: Worst) -> None:
    reply.start(("Location", "http://localhost:1/dicom-web/x"), ("Content-Length", "0"), status=302)


def short_body(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT), ("Content-Length", "100000000"))
    reply.part(image())
    reply.end()
    reply.connection.close()


def wrong_part_length(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(image(0))
    reply.part(image(1), "Content-Length: 10")
    reply.end()


def ten_gigabytes_said(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(image(0), f"Content-Length: {10 << 30}")


def ten_gigabytes_sent(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(image(0))
    reply.wfile.write(f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode())
    block = bytes(1 << 20)
    for _ in range(10 << 10):
        reply.wfile.write(block)


def endless_headers(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.wfile.write(f"--{BOUNDARY}\r\n".encode())
    while True:
        reply.wfile.write(b"X-Filler: " + b"a" * 4096 + b"\r\n")


def another_series(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(image(0))
    reply.part(image(1, SeriesInstanceUID="1.2.826.0.1.7.9.9"))
    reply.end()


def a_page(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(image(0))
    reply.part(b"<html></html>", content_type="text/html")
    reply.end()


def garbage(reply: Worst) -> None:
    reply.start(("Content-Type", CONTENT))
    reply.part(b"\xff" * 5000)
    reply.end()


def packed(reply: Worst) -> None:
    import gzip

    reply.start(("Content-Type", CONTENT), ("Content-Encoding", "gzip"))
    reply.wfile.write(gzip.compress(bytes(1 << 20)))


def server_error(reply: Worst) -> None:
    reply.start(("Content-Length", "0"), status=500)


def busy(reply: Worst) -> None:
    reply.start(("Content-Length", "0"), ("Retry-After", "1"), status=503)


WORST: list[tuple[Send, str]] = [
    (endless, "too-many-answers"), (the_same_again, "answer-unusable"), (wrong_boundary, "answer-unusable"),
    (no_multipart, "answer-unusable"), (no_end, "answer-unusable"), (elsewhere, "redirected"),
    (short_body, "association-lost"), (wrong_part_length, "answer-unusable"), (ten_gigabytes_said, "instance-too-large"),
    (ten_gigabytes_sent, "instance-too-large"), (endless_headers, "instance-too-large"),
    (another_series, "answer-unusable"), (a_page, "answer-unusable"), (garbage, "answer-unusable"),
    (packed, "answer-unusable"), (server_error, "unable-to-process"), (busy, "out-of-resources"),
]  # fmt: skip


def test_the_server_of_this_test_can_be_honest(home: Path) -> None:
    with serving(Server(honest)) as port, desk(home, web_settings(home, port)) as kit:
        report = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
        assert (report.items, report.received) == ({"retrieved": 1}, 2)
        wait_until(lambda: bool(kit.accepted), "the batch")
        assert received(kit) == 2


@pytest.mark.parametrize(("send", "reason"), WORST, ids=lambda value: getattr(value, "__name__", ""))
def test_the_worst_is_refused_with_its_reason_and_nothing_half_done(
    home: Path, send: Send, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real ceilings but for this one, so that the test does not move hundreds of megabytes.
    monkeypatch.setattr(dicomweb, "MAX_INSTANCE_BYTES", 32 << 20)
    with serving(Server(send)) as port, desk(home, web_settings(home, port)) as kit:
        report = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
        stopped = report.state.value == "stopped"
        assert (report.reason if stopped else next(iter(report.reasons))) == reason
        assert report.items == ({"found": 1} if stopped else {"failed": 1})
        assert report.received == 0
        assert received(kit) == 0, "what came before the fault is taken back"
        assert not kit.accepted
        assert [path for path in kit.paths.spool.rglob("*") if path.is_file()] == []


def test_a_transfer_syntax_that_could_grow_without_bound_is_left_there(home: Path) -> None:
    def deflated(reply: Worst) -> None:
        dataset, file = dcmread(BytesIO(image(1))), BytesIO()
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(file, enforce_file_format=True)
        reply.start(("Content-Type", CONTENT))
        reply.part(image(0))
        reply.part(file.getvalue())
        reply.end()

    with serving(Server(deflated)) as port, desk(home, web_settings(home, port)) as kit:
        report = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
        assert (report.items, report.received) == ({"retrieved": 1}, 1)
        assert report.reasons == {"other-kinds-left": 1}


def test_a_search_that_has_no_end_ends(home: Path) -> None:
    class Endless(Server):
        """Says that there is more, and gives the same."""

    what = Endless(honest)
    with serving(what) as port:
        real = Worst.answer

        def more(self: Worst, document: object) -> None:
            body = json.dumps(document).encode()
            self.start(
                ("Content-Type", "application/dicom+json"), ("Content-Length", str(len(body))),
                ("Warning", '299 server "there is more"'),
            )  # fmt: skip
            self.wfile.write(body)

        try:
            Worst.answer = more  # type: ignore[method-assign]
            with desk(home, web_settings(home, port)) as kit:
                with pytest.raises(PacsError) as caught:
                    kit.desk.query("main", StudyCriteria(date(2020, 9, 17), date(2020, 9, 17), ("DX",)))
                assert caught.value.fault is PacsFault.TOO_MANY_ANSWERS
        finally:
            Worst.answer = real  # type: ignore[method-assign]
    assert len(what.seen) == 2


def test_tls_with_our_own_authority_and_a_token(
    home: Path, tmp_path: Path, certificates: dict[str, Certificates]
) -> None:
    home.mkdir()
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    ours, theirs = certificates["station"], certificates["pacs"]
    secure = {
        "tls": "server", "tls_ca_file": str(ours.authority), "web_user": None, "web_password_file": None,
        "web_token_file": str(token),
    }  # fmt: skip
    what = Server(honest)
    with serving(what, theirs) as port, desk(home, web_settings(home, port, **secure)) as kit:
        report = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
        assert report.received == 2
        assert what.authorisation == {f"Bearer {TOKEN}"}
    stranger = Server(honest)
    with (
        serving(stranger, certificates["stranger"]) as port,
        desk(home, web_settings(home, port, **secure)) as kit,
    ):
        with pytest.raises(PacsError) as caught:
            kit.desk.echo("main")
        assert caught.value.fault is PacsFault.UNREACHABLE
        assert stranger.seen == [], "nothing was asked of it, and no token shown"


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "pacs.example.org"},
        {"web_user": None},
        {"web_password_file": None},
        {"web_token_file": "token"},
        {"method": "c-get", "ae_title": "A", "calling_ae_title": "B"},
        {"method": "c-get", "web_user": None, "web_password_file": None},
        {"tls": "server"},
        {"tls": "mutual"},
        {"web_path": "/../x?y"},
    ],
)
def test_settings_that_do_not_fit_are_refused(home: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        web_settings(home, 443, **changes)


def test_the_most_of_a_series_is_bounded_where_its_server_does_not_say(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_link, "MOST_INSTANCES", 1)
    what = Server(honest)
    what.instances = "unknown"  # type: ignore[assignment]
    with serving(what) as port, desk(home, web_settings(home, port)) as kit:
        report = kit.finished(kit.desk.retrieve_accessions("main", COLLECTION, accessions(1)).job)
        assert (report.items, report.reasons) == ({"failed": 1}, {"too-many-answers": 1})
