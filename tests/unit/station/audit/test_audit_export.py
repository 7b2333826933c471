"""Exports and signed heads: what an auditor checks without the station."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.documents import digest_of
from policies.errors import StorageError, TrustError
from policies.refusals import Permitted
from station.audit import (
    AuditEvent,
    AuditLog,
    AuditRecord,
    ChainBreak,
    ChainHead,
    export,
    open_head,
    sign_head,
    verify_export,
)
from station.storage import open_database

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def sign(head: ChainHead) -> bytes:
    return sign_head("umc-a", "audit", head, KEY, NOW)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(open_database(tmp_path / "station.db"))
    for number in range(5):
        log.append(
            AuditRecord(event=AuditEvent.ORDER_SEEN, actor="station:compute", numbers={"round": number})
        )
    return log


@pytest.fixture
def out(log: AuditLog, tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    assert export(open_database(tmp_path / "station.db"), path, sign) == log.head()
    return path


def test_an_export_verifies_with_the_stations_key(log: AuditLog, out: Path) -> None:
    assert verify_export(out, KEY.public_key()) == Permitted(log.head())
    assert verify_export(out) == Permitted(log.head())
    assert verify_export(out, KEY.public_key(), ChainHead(3, log.events()[2].digest)) == Permitted(log.head())


def test_each_line_is_the_entrys_own_bytes(log: AuditLog, out: Path) -> None:
    lines = out.read_bytes().splitlines()
    assert [digest_of(line) for line in lines[:-1]] == [event.digest for event in log.events()]


def test_an_unsigned_export_does_not_pass_for_a_signed_one(tmp_path: Path, log: AuditLog) -> None:
    path = tmp_path / "unsigned.jsonl"
    export(open_database(tmp_path / "station.db"), path)
    assert verify_export(path) == Permitted(log.head())
    assert verify_export(path, KEY.public_key()) == ChainBreak(6, "the file does not end in a signed head")


def test_another_stations_head_does_not_pass(out: Path) -> None:
    with pytest.raises(TrustError):
        verify_export(out, Ed25519PrivateKey.generate().public_key())


def test_a_head_of_another_chain_does_not_pass(tmp_path: Path, log: AuditLog) -> None:
    path = tmp_path / "mixed.jsonl"
    export(
        open_database(tmp_path / "station.db"),
        path,
        lambda head: sign_head("umc-a", "egress", head, KEY, NOW),
    )
    assert verify_export(path, KEY.public_key()) == ChainBreak(6, "the signed head is of another chain")


def test_a_head_of_other_entries_does_not_pass(out: Path) -> None:
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:3], lines[-1]]))
    broken = verify_export(out, KEY.public_key())
    assert isinstance(broken, ChainBreak)
    assert broken.seq == 4


def test_nothing_stands_behind_the_head(out: Path) -> None:
    out.write_bytes(out.read_bytes() + b"{}\n")
    assert verify_export(out) == ChainBreak(6, "bytes stand behind the signed head")


def test_a_missing_file_is_a_storage_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        verify_export(tmp_path / "missing")


def test_a_signed_head_opens_with_its_key_alone() -> None:
    signed = sign(ChainHead(5, "sha256:" + "a" * 64))
    opened = open_head(signed, KEY.public_key())
    assert (opened.station, opened.chain, opened.head, opened.signed) == (
        "umc-a",
        "audit",
        ChainHead(5, "sha256:" + "a" * 64),
        NOW,
    )
    for damaged in (b"", b"[]", b"{}", b"null", signed[:-5], signed.replace(b'"sig":"', b'"sig":"A')):
        with pytest.raises(TrustError):
            open_head(damaged, KEY.public_key())
