"""The C-STORE receiver against dcmtk's storescu: TLS, who may send, bounds, and SIGKILL."""

import logging
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pacs_kit import (
    DCMTK,
    DCMTK_ENVIRONMENT,
    Certificates,
    acknowledged,
    dcmtk,
    free_port,
    sop_instance_uid,
    storescu_arguments,
    tls_arguments,
    wait_until,
)
from pacs_station import (
    COLLECTION,
    FEED_AET,
    MODALITY_AET,
    IntakeProcess,
    Shelf,
    handed_over,
    radiograph,
    receiver_settings,
    write_files,
)
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association

from policies.errors import StateError, UnavailableError
from station.intake import spool
from station.intake.intake import Intake
from station.intake.settings import IntakeSettings
from station.intake.sources.network import TlsFiles
from station.intake.sources.receiver import Receiver
from station.intake.sources.reception import Expectation
from station.intake.sources.sop_classes import COMPRESSED

Serve = Callable[..., IntakeProcess]

DX = "1.2.840.10008.5.1.4.1.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def send(
    port: int,
    files: list[Path],
    *more: object,
    calling: str = MODALITY_AET,
    called: str = FEED_AET,
    tls: Certificates | None = None,
) -> "subprocess.CompletedProcess[str]":
    arguments = storescu_arguments(port, files, calling=calling, called=called, tls=tls)
    return dcmtk("storescu", *more, *arguments)


def heard(result: "subprocess.CompletedProcess[str]") -> str:
    return result.stdout + result.stderr


@contextmanager
def receiving(
    folder: Path, tls: Certificates | None = None, **changes: Any
) -> Iterator[tuple[Receiver, Shelf, Path]]:
    shelf = Shelf()
    place = folder / "spool"
    place.mkdir()
    files = TlsFiles(tls.authority, tls.certificate, tls.key) if tls else None
    receiver = Receiver(
        receiver_settings(free_port(), tls, **changes),
        files,
        place,
        IntakeSettings().sop_classes,
        shelf,
        shelf,
    )
    receiver.start()
    try:
        yield receiver, shelf, place
    finally:
        receiver.stop()


@contextmanager
def associated(port: int, sop_class: str = DX) -> Iterator[Association]:
    entity = AE(ae_title=MODALITY_AET)
    entity.add_requested_context(sop_class, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title=FEED_AET)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def test_what_is_sent_with_mutual_tls_is_handed_over_and_nothing_of_it_is_logged(
    serve: Serve, certificates: dict[str, Certificates], tmp_path: Path
) -> None:
    port = free_port()
    service = serve(receiver_settings(port, certificates["station"]))
    files = write_files(tmp_path / "files", [radiograph(number) for number in range(12)])
    result = send(port, files, tls=certificates["modality"])
    assert result.returncode == 0, heard(result)
    assert acknowledged(heard(result)) == files
    wait_until(lambda: service.instances() == 12, "the batch")
    assert service.stop() == 0
    assert len(set(handed_over(service.paths))) == 12
    log = service.log.read_text()
    values = ("Testpatient", "3700001", "ACC00001", "1.2.826.0.1.7", MODALITY_AET, FEED_AET)
    assert not [value for value in values if value in log]


def test_data_sets_are_stored_as_they_came(tmp_path: Path) -> None:
    sent = radiograph(1)
    with receiving(tmp_path) as (receiver, shelf, place):
        result = send(receiver.port, write_files(tmp_path / "files", [sent]))
        assert result.returncode == 0, heard(result)
        wait_until(lambda: shelf.files == 1, "the batch")
    (batch,) = shelf.batches
    assert (batch.card.collection, batch.card.source) == (COLLECTION, spool.SourceKind.C_STORE)
    stored = (place / batch.name / "0000000").read_bytes()
    original, copy = dcmread(BytesIO(sent)), dcmread(BytesIO(stored))
    assert copy.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    assert copy == original
    # The very bytes of the data set, from its first element on.
    start = sent.index(b"\x08\x00\x16\x00UI")
    assert stored.endswith(sent[start:])


def test_an_echo_is_answered_to_who_may_send(tmp_path: Path, certificates: dict[str, Certificates]) -> None:
    with receiving(tmp_path, certificates["station"]) as (receiver, _, _):
        arguments = ["-v", *tls_arguments(certificates["modality"]), "-aet", MODALITY_AET, "-aec", FEED_AET]
        result = dcmtk("echoscu", *arguments, "127.0.0.1", receiver.port)
        assert result.returncode == 0, heard(result)
        assert "Received Echo Response (Success)" in heard(result)


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("SOMEBODY", FEED_AET, "Calling AE Title Not Recognized"),
        (MODALITY_AET, "OTHER", "Called AE Title Not Recognized"),
        (MODALITY_AET.lower(), FEED_AET, "Calling AE Title Not Recognized"),
    ],
)
def test_who_is_not_on_the_list_is_refused(tmp_path: Path, calling: str, called: str, reason: str) -> None:
    with receiving(tmp_path) as (receiver, _, place):
        files = write_files(tmp_path / "files", [radiograph(1)])
        result = send(receiver.port, files, calling=calling, called=called)
        assert result.returncode != 0
        assert reason in heard(result)
        assert acknowledged(heard(result)) == []
        assert [path for path in place.iterdir() if not path.name.startswith(".gate")] == []


def test_without_a_certificate_of_our_authority_nothing_gets_in(
    tmp_path: Path, certificates: dict[str, Certificates]
) -> None:
    files = write_files(tmp_path / "files", [radiograph(1)])
    with receiving(tmp_path, certificates["station"]) as (receiver, shelf, _):
        plain = send(receiver.port, files)
        anonymous = send(receiver.port, files, "+tla", "+cf", certificates["station"].authority)
        stranger = send(receiver.port, files, tls=certificates["stranger"])
        for result in (plain, anonymous, stranger):
            assert result.returncode != 0
            assert acknowledged(heard(result)) == []
        assert send(receiver.port, files, tls=certificates["modality"]).returncode == 0
        wait_until(lambda: shelf.files == 1, "the one that has a certificate")


def test_tls_below_1_2_is_refused(tmp_path: Path, certificates: dict[str, Certificates]) -> None:
    party = certificates["modality"]
    with receiving(tmp_path, certificates["station"]) as (receiver, _, _):

        def version(highest: ssl.TLSVersion) -> str | None:
            context = ssl.create_default_context(cafile=party.authority)
            context.load_cert_chain(party.certificate, party.key)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = highest
            with (
                socket.create_connection(("127.0.0.1", receiver.port)) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as secure,
            ):
                return secure.version()

        assert version(ssl.TLSVersion.MAXIMUM_SUPPORTED) == "TLSv1.3"
        assert version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            version(ssl.TLSVersion.TLSv1_1)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, certificates: dict[str, Certificates]) -> None:
    party = certificates["station"]
    key = tmp_path / "open.key"
    key.write_bytes(party.key.read_bytes())
    key.chmod(0o640)
    with pytest.raises(StateError, match="others may read"):
        TlsFiles(party.authority, party.certificate, key).server()
    with pytest.raises(StateError, match="cannot be read"):
        TlsFiles(party.authority, tmp_path / "absent.pem", party.key).client()


def test_killed_in_mid_stream_no_acknowledged_instance_is_lost(
    serve: Serve, certificates: dict[str, Certificates], tmp_path: Path
) -> None:
    port = free_port()
    service = serve(receiver_settings(port, certificates["station"], batch_instances=40))
    files = write_files(tmp_path / "files", [radiograph(number) for number in range(400)])
    arguments = storescu_arguments(
        port, files, calling=MODALITY_AET, called=FEED_AET, tls=certificates["modality"]
    )
    seen = tmp_path / "storescu.out"
    with seen.open("w") as output:
        sender = subprocess.Popen(
            [str(DCMTK / "storescu"), *map(str, arguments)],
            stdout=output,
            stderr=output,
            env=DCMTK_ENVIRONMENT,
        )
        wait_until(lambda: len(acknowledged(seen.read_text())) > 90, "the stream")
        service.kill()
        sender.wait(60)
    told = {sop_instance_uid(path) for path in acknowledged(seen.read_text())}
    assert 90 < len(told) < 400, "it was not killed in the middle"
    service.start()
    with_pseudonyms = expected(service, told)
    wait_until(lambda: with_pseudonyms <= set(handed_over(service.paths)), "what was acknowledged")
    assert service.stop() == 0
    found = handed_over(service.paths)
    assert len(found) == len(set(found)), "nothing twice"
    # At most the one that was on its way besides.
    assert len(found) <= len(told) + 1


def expected(service: IntakeProcess, uids: set[str]) -> set[str]:
    from station.pseudonymisation.keys import PseudonymKey

    keys = PseudonymKey.load(service.paths.pseudonym_key).for_project("registry")
    return {keys.remap_uid(uid) for uid in uids}


def test_an_association_that_never_ends_still_flows(tmp_path: Path) -> None:
    with receiving(tmp_path, batch_instances=3) as (receiver, shelf, _), associated(receiver.port) as link:
        for number in range(7):
            assert link.send_c_store(dcmread(BytesIO(radiograph(number)))).Status == 0
        wait_until(lambda: shelf.files == 6, "two batches by number")
        assert link.is_established
    with pytest.raises(UnavailableError):
        Receiver(
            receiver_settings(free_port(), address="192.0.2.1"), None, tmp_path, (DX,), shelf, shelf
        ).start()


def test_a_quiet_association_is_cut_by_age(tmp_path: Path) -> None:
    with receiving(tmp_path, batch_seconds=1) as (receiver, shelf, _), associated(receiver.port) as link:
        assert link.send_c_store(dcmread(BytesIO(radiograph(1)))).Status == 0
        wait_until(lambda: shelf.files == 1, "the batch by age")
        assert link.is_established


def test_stopping_passes_on_what_was_acknowledged(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, shelf, _):
        entity = AE(ae_title=MODALITY_AET)
        entity.add_requested_context(DX)
        link = entity.associate("127.0.0.1", receiver.port, ae_title=FEED_AET)
        assert link.send_c_store(dcmread(BytesIO(radiograph(1)))).Status == 0
        receiver.stop()
        assert shelf.files == 1
        wait_until(lambda: not link.is_established, "the end of the association")


def test_an_instance_that_is_not_what_the_message_says_is_refused(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, shelf, _), associated(receiver.port) as link:
        dataset = dcmread(BytesIO(radiograph(1)))
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        assert status_of(link, dataset, "1.2.3.4") == 0xA900
        nothing = dcmread(BytesIO(radiograph(2)))
        del nothing.SOPInstanceUID
        assert status_of(link, nothing, "1.2.826.0.1.7.2.1") == 0xC000
        assert link.is_established
    assert shelf.batches == []


def status_of(link: Association, dataset: Any, uid: str) -> int:
    """Send a data set as another instance: pynetdicom's own sender would not."""
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = DX
    request.AffectedSOPInstanceUID = uid
    request.Priority = 2
    encoded = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert encoded
    request.DataSet = BytesIO(encoded)
    (context,) = link.accepted_contexts
    link._reactor_checkpoint.clear()
    link.dimse.send_msg(request, context.context_id or 1)
    _, response = link.dimse.get_msg(block=True)
    link._reactor_checkpoint.set()
    return int(response.Status)


def test_during_a_retrieval_only_the_series_asked_for_is_taken(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, shelf, _):
        expectation = shelf.expectation = Expectation()
        expectation.expect("1.2.826.0.1.7.1.3")
        with associated(receiver.port) as link:
            assert link.send_c_store(dcmread(BytesIO(radiograph(2)))).Status == 0xA900
            for _ in range(2):
                assert link.send_c_store(dcmread(BytesIO(radiograph(1)))).Status == 0x0000
        assert expectation.end("1.2.826.0.1.7.1.3") == {"1.2.826.0.1.7.1.1"}
        wait_until(lambda: shelf.files == 2, "the batch")
        with associated(receiver.port) as link:
            assert link.send_c_store(dcmread(BytesIO(radiograph(1)))).Status == 0xA900


def test_a_full_disk_is_out_of_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(tmp_path) as (receiver, shelf, _), associated(receiver.port) as link:
        dataset = dcmread(BytesIO(radiograph(1)))
        monkeypatch.setattr(spool, "RESERVE_BYTES", 1 << 60)
        assert link.send_c_store(dataset).Status == 0xA700
        monkeypatch.undo()
        assert link.send_c_store(dataset).Status == 0x0000
    wait_until(lambda: shelf.files == 1, "the second attempt")


def test_compressed_syntaxes_are_accepted_and_others_of_its_kind_are_not(tmp_path: Path) -> None:
    with receiving(tmp_path) as (receiver, _, _):
        entity = AE(ae_title=MODALITY_AET)
        for syntax in COMPRESSED:
            entity.add_requested_context(CT, syntax)
        deflated, secondary_capture = "1.2.840.10008.1.2.1.99", "1.2.840.10008.5.1.4.1.1.7"
        entity.add_requested_context(CT, deflated)
        entity.add_requested_context(secondary_capture)
        link = entity.associate("127.0.0.1", receiver.port, ae_title=FEED_AET)
        accepted = {
            (context.abstract_syntax, context.transfer_syntax[0]) for context in link.accepted_contexts
        }
        link.release()
        assert accepted == {(CT, syntax) for syntax in COMPRESSED}


def test_too_long_an_instance_ends_its_association_and_no_other(tmp_path: Path) -> None:
    long = radiograph(1, Rows=1024, Columns=1024, PixelData=bytes(2 * 1024 * 1024))
    with receiving(tmp_path, max_instance_mib=1) as (receiver, shelf, _):
        result = send(receiver.port, write_files(tmp_path / "long", [long]))
        assert result.returncode != 0
        assert acknowledged(heard(result)) == []
        assert send(receiver.port, write_files(tmp_path / "short", [radiograph(2)])).returncode == 0
        wait_until(lambda: shelf.files == 1, "the short one")


def test_more_associations_than_allowed_are_refused_for_now(tmp_path: Path) -> None:
    with receiving(tmp_path, max_associations=1) as (receiver, _, _), associated(receiver.port):
        result = send(receiver.port, write_files(tmp_path / "files", [radiograph(1)]))
        assert "Local Limit Exceeded" in heard(result)


GARBAGE: list[bytes] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x01\x00\xff\xff\xff\xff" + bytes(1000),
    b"\x04\x00\x00\x00\x00\x10" + bytes(16),
    b"\x01\x00\x00\x00\x00\x04" + bytes(4),
    bytes(10),
    b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
    b"",
]


def _truncated(port: int) -> None:
    """An association that is established, and then half a message."""
    entity = AE(ae_title=MODALITY_AET)
    entity.add_requested_context(DX)
    link = entity.associate("127.0.0.1", port, ae_title=FEED_AET)
    raw = link.dul.socket.socket
    raw.sendall(b"\x04\x00\x00\x00\x00\x20\x00\x00\x00\x1c\x01\x03" + b"\xff" * 26)
    raw.shutdown(socket.SHUT_WR)
    link.abort()
    # pynetdicom's own requestor leaves a socket open that its peer has closed.
    raw.close()


@pytest.mark.parametrize("tls", [False, True])
def test_garbage_disturbs_nobody(
    tmp_path: Path, certificates: dict[str, Certificates], caplog: pytest.LogCaptureFixture, *, tls: bool
) -> None:
    with receiving(tmp_path, certificates["station"] if tls else None) as (receiver, shelf, _):
        for garbage in GARBAGE:
            with socket.create_connection(("127.0.0.1", receiver.port)) as raw:
                raw.sendall(garbage)
        if not tls:
            _truncated(receiver.port)
        files = write_files(tmp_path / "files", [radiograph(1)])
        result = send(receiver.port, files, tls=certificates["modality"] if tls else None)
        assert result.returncode == 0, heard(result)
        wait_until(lambda: shelf.files == 1, "the one that behaves")
    assert not [record for record in caplog.records if record.name.startswith("pynetdicom")]


def test_a_peer_that_says_nothing_holds_up_nobody(
    tmp_path: Path, certificates: dict[str, Certificates]
) -> None:
    with (
        receiving(tmp_path, certificates["station"]) as (receiver, shelf, _),
        socket.create_connection(("127.0.0.1", receiver.port)),
    ):
        files = write_files(tmp_path / "files", [radiograph(1)])
        assert send(receiver.port, files, tls=certificates["modality"]).returncode == 0
        wait_until(lambda: shelf.files == 1, "the one that speaks")


def test_peers_that_went_keep_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than anybody waits here: nobody gets a place because they timed out.
    monkeypatch.setattr("station.intake.sources.receiver._NEGOTIATION_S", 3600)
    with receiving(tmp_path, max_associations=1, timeout_s=3600) as (receiver, shelf, _):
        for _ in range(3):
            for garbage in GARBAGE:
                with socket.create_connection(("127.0.0.1", receiver.port)) as raw:
                    raw.sendall(garbage)
        files = write_files(tmp_path / "files", [radiograph(1)])
        wait_until(lambda: send(receiver.port, files).returncode == 0, "a place")
        wait_until(lambda: shelf.files == 1, "the one that behaves")


def test_the_receiver_is_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving(tmp_path) as (receiver, _, _):
        send(receiver.port, write_files(tmp_path / "files", [radiograph(1)]))
    text = " ".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert not [value for value in ("Testpatient", "1.2.826.0.1.7", MODALITY_AET) if value in text]


def test_a_batch_of_a_collection_that_is_no_more_waits_for_the_operator(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    service = serve(receiver_settings(port, feeds=((MODALITY_AET, FEED_AET, "gone"),)))
    result = send(port, write_files(tmp_path / "files", [radiograph(1)]))
    assert result.returncode == 0, heard(result)
    wait_until(lambda: "dicom-batch-failed" in service.log.read_text(), "the batch")
    assert service.stop() == 0
    with Intake(service.paths, IntakeSettings(collections=(COLLECTION,))) as intake:
        assert intake.recover() == []
        assert intake.status().batches_waiting == 1
