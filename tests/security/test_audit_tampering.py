"""Attack: somebody with the database file changes the record. Every change is found, and located."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.documents import canonical_json, digest_of, parse_json
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
    verify,
    verify_export,
)
from station.storage import Database, open_database

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ENTRIES = 8


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    database = open_database(folder / "station.db")
    log = AuditLog(database)
    for number in range(ENTRIES):
        log.append(
            AuditRecord(event=AuditEvent.DATA_USED, actor="station:compute", numbers={"round": number})
        )
    (folder / "head.json").write_bytes(
        sign_head("umc-a", "audit", log.head(), KEY, datetime(2026, 11, 22, tzinfo=UTC))
    )
    export(
        database,
        folder / "audit.jsonl",
        lambda head: sign_head("umc-a", "audit", head, KEY, datetime.now(UTC)),
    )
    with database.connection() as connection:
        connection.exec_driver_sql("SELECT 1")
    database.close()
    return folder


@pytest.fixture
def tampered(original: Path, tmp_path: Path) -> Path:
    """A copy whose triggers an attacker has dropped."""
    path = tmp_path / "station.db"
    shutil.copy(original / "station.db", path)
    change(path, "DROP TRIGGER audit_events_not_changed", "DROP TRIGGER audit_events_not_removed")
    return path


def change(path: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement, values)
    connection.close()


def broken_at(path: Path, known: ChainHead | None = None) -> int:
    database = Database(path)
    result = verify(database, known)
    database.close()
    assert isinstance(result, ChainBreak), result
    return result.seq


def known_head(original: Path) -> ChainHead:
    return open_head((original / "head.json").read_bytes(), KEY.public_key()).head


def test_untouched_it_verifies(tampered: Path, original: Path) -> None:
    assert verify(open_database(tampered), known_head(original)) == Permitted(known_head(original))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found_where_it_is(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    seq = data.draw(st.integers(1, ENTRIES))
    column = data.draw(st.sampled_from(["body", "digest"]))
    # A folder for each example: what SQLite leaves beside a file would be read into the next copy of it.
    path = Path(tempfile.mkdtemp(dir=tmp_path)) / "station.db"
    shutil.copy(original / "station.db", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        row = connection.execute("SELECT body, digest FROM audit_events WHERE seq = ?", (seq,)).fetchone()
        value = row[0] if column == "body" else row[1]
        raw = bytearray(value if isinstance(value, bytes) else value.encode())
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0x20, 0x7E).filter(lambda byte: byte != raw[place]))
        new = (bytes(raw), row[1]) if column == "body" else (row[0], raw.decode())
        connection.execute("DROP TRIGGER audit_events_not_changed")
        connection.execute("UPDATE audit_events SET body = ?, digest = ? WHERE seq = ?", (*new, seq))
    assert broken_at(path) == seq


def test_a_removed_entry_is_found(tampered: Path) -> None:
    change(tampered, "DELETE FROM audit_events WHERE seq = 4")
    assert broken_at(tampered) == 4


def test_entries_in_another_order_are_found(tampered: Path) -> None:
    change(
        tampered,
        "UPDATE audit_events SET seq = 99 WHERE seq = 3",
        "UPDATE audit_events SET seq = 3 WHERE seq = 5",
        "UPDATE audit_events SET seq = 5 WHERE seq = 99",
    )
    assert broken_at(tampered) == 3


def test_an_entry_renumbered_to_close_a_gap_is_found(tampered: Path) -> None:
    change(
        tampered,
        "DELETE FROM audit_events WHERE seq = 4",
        "UPDATE audit_events SET seq = seq - 1 WHERE seq > 4",
    )
    assert broken_at(tampered) == 4


def test_an_entry_rewritten_with_its_digest_is_found_at_the_next(tampered: Path) -> None:
    connection = sqlite3.connect(tampered)
    (body,) = connection.execute("SELECT body FROM audit_events WHERE seq = 4").fetchone()
    connection.close()
    new = canonical_json({**parse_json(body, what="entry"), "actor": "operator:somebody.else"})
    change(
        tampered, "UPDATE audit_events SET body = ?1, digest = ?2 WHERE seq = 4", values=(new, digest_of(new))
    )
    assert broken_at(tampered) == 5


def test_a_tail_cut_off_is_found_against_a_signed_head(tampered: Path, original: Path) -> None:
    change(tampered, "DELETE FROM audit_events WHERE seq > ?", values=(ENTRIES - 2,))
    assert isinstance(verify(open_database(tampered)), Permitted)
    assert broken_at(tampered, known_head(original)) == ENTRIES - 1


def test_a_chain_rewritten_from_the_middle_is_found_against_a_signed_head(
    tampered: Path, original: Path
) -> None:
    connection = sqlite3.connect(tampered)
    rows = connection.execute("SELECT seq, body FROM audit_events ORDER BY seq").fetchall()
    previous = None
    with connection:
        for seq, body in rows:
            entry = parse_json(body, what="entry")
            if seq == 4:
                entry["actor"] = "operator:somebody.else"
            if previous is not None:
                entry["previous"] = previous
            new = canonical_json(entry)
            previous = digest_of(new)
            connection.execute(
                "UPDATE audit_events SET body = ?, digest = ? WHERE seq = ?", (new, previous, seq)
            )
    connection.close()
    assert isinstance(verify(open_database(tampered)), Permitted)
    assert broken_at(tampered, known_head(original)) == ENTRIES


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_an_export_is_found(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray((original / "audit.jsonl").read_bytes())
    entries_end = raw.rindex(b'{"head"')
    place = data.draw(st.integers(0, entries_end - 1))
    raw[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[place]))
    (tmp_path / "audit.jsonl").write_bytes(bytes(raw))
    result = verify_export(tmp_path / "audit.jsonl", KEY.public_key())
    assert isinstance(result, ChainBreak)
    line = bytes(raw[:place]).count(b"\n") + 1
    assert result.seq in {line, line + 1}


def test_an_export_cut_anywhere_is_found(original: Path, tmp_path: Path) -> None:
    whole = (original / "audit.jsonl").read_bytes()
    known = known_head(original)
    for end in range(0, whole.rindex(b'{"head"'), 37):
        (tmp_path / "cut.jsonl").write_bytes(whole[:end])
        assert isinstance(verify_export(tmp_path / "cut.jsonl", known=known), ChainBreak)
