import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policies.errors import NotFoundError, TrustError, UsageError
from policies.tls import (
    CertificateAuthority,
    check_certificate,
    client_context,
    create_ca,
    issue_server_certificate,
    read_certificate,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    made = create_ca("test")
    made.write(tmp_path / "ca.pem", tmp_path / "ca.key")
    return made


def _handshake(folder: Path, hosts: list[str], authority: CertificateAuthority, name: str) -> None:
    issue_server_certificate(authority, hosts).write(folder / "server.pem", folder / "server.key")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    ours, theirs = socket.socketpair()
    ours.settimeout(120)
    theirs.settimeout(120)

    def answer() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        client_context(folder / "ca.pem").wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", ["orchestrator.example", "127.0.0.1", "::1"])
def test_a_client_that_pins_the_authority_accepts_every_named_host(
    tmp_path: Path, authority: CertificateAuthority, name: str
) -> None:
    _handshake(tmp_path, ["orchestrator.example", "127.0.0.1", "::1"], authority, name)


def test_another_host_is_not_accepted(tmp_path: Path, authority: CertificateAuthority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path, ["orchestrator.example"], authority, "other.example")


def test_another_authority_is_not_accepted(tmp_path: Path, authority: CertificateAuthority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(tmp_path, ["localhost"], create_ca("other"), "localhost")
    assert authority


def test_keys_are_the_owners_alone(tmp_path: Path, authority: CertificateAuthority) -> None:
    issue_server_certificate(authority, ["localhost"]).write(tmp_path / "server.pem", tmp_path / "server.key")
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_an_authority_is_never_overwritten(tmp_path: Path, authority: CertificateAuthority) -> None:
    with pytest.raises(UsageError):
        create_ca("second").write(tmp_path / "ca.pem", tmp_path / "ca.key")
    assert (
        CertificateAuthority.read(tmp_path / "ca.pem", tmp_path / "ca.key").certificate
        == authority.certificate
    )


def test_an_authority_and_a_foreign_key_do_not_fit(tmp_path: Path, authority: CertificateAuthority) -> None:
    create_ca("second").write(tmp_path / "second.pem", tmp_path / "second.key")
    with pytest.raises(TrustError, match="is not the key"):
        CertificateAuthority.read(tmp_path / "ca.pem", tmp_path / "second.key")
    assert authority


def test_expiry_is_said_with_its_date(tmp_path: Path) -> None:
    authority = create_ca("test", now=NOW, life=timedelta(days=30))
    issue_server_certificate(authority, ["localhost"], now=NOW, life=timedelta(days=10)).write(
        tmp_path / "server.pem", tmp_path / "server.key"
    )
    path = tmp_path / "server.pem"
    assert check_certificate(path, now=NOW) == NOW + timedelta(days=10)
    with pytest.raises(TrustError, match="expired on 2026-12-02 00:00 UTC"):
        check_certificate(path, now=NOW + timedelta(days=10))
    with pytest.raises(TrustError, match="valid only from"):
        check_certificate(path, now=NOW - timedelta(days=1))


def test_a_server_certificate_ends_with_its_authority(tmp_path: Path) -> None:
    authority = create_ca("test", now=NOW, life=timedelta(days=30))
    issue_server_certificate(authority, ["localhost"], now=NOW, life=timedelta(days=800)).write(
        tmp_path / "server.pem", tmp_path / "server.key"
    )
    assert read_certificate(tmp_path / "server.pem").not_valid_after_utc == NOW + timedelta(days=30)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"ca\.pem"):
        client_context(tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(TrustError, match=r"ca\.pem"):
        client_context(tmp_path / "ca.pem")


@pytest.mark.parametrize("hosts", [[], ["gräfin.example"]])
def test_a_certificate_needs_hosts(authority: CertificateAuthority, hosts: list[str]) -> None:
    with pytest.raises(UsageError):
        issue_server_certificate(authority, hosts)
