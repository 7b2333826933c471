"""The audit log: typed, durable on return, in order."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from policies.errors import StateError, StorageError
from policies.refusals import Permitted
from station.audit import AuditEvent, AuditLog, AuditRecord, ChainHead, verify
from station.audit.chain import GENESIS, Chain
from station.audit.tables import AuditRow
from station.storage import Database, open_database

NOW = datetime(2026, 11, 22, 4, 0, 0, 250, tzinfo=UTC)
ORDER = "sha256:" + "5" * 64


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database, clock=lambda: NOW)


def record(round_: int = 1) -> AuditRecord:
    return AuditRecord(
        event=AuditEvent.RELEASE_RECORDED,
        actor="station:compute",
        on_behalf_of="requester:umc-demo",
        purpose="method-development",
        object=ORDER,
        codes=("RELEASE_CELL_TOO_SMALL",),
        numbers={"round": round_},
        detail="stage train",
    )


def test_an_event_is_read_back_as_it_was_written(log: AuditLog) -> None:
    assert log.append(record()) == 1
    (stored,) = log.events()
    assert (stored.seq, stored.time, stored.record) == (1, NOW, record())
    assert log.head() == ChainHead(1, stored.digest)


def test_a_head_says_nothing_to_who_guesses_the_entry(tmp_path: Path) -> None:
    """Heads leave the station: what an entry says, its moment included, must not follow from trying what it could be."""
    heads = set()
    for name in ("one", "other"):
        log = AuditLog(open_database(tmp_path / f"{name}.db"), clock=lambda: NOW)
        log.append(record())
        heads.add(log.head().digest)
    assert len(heads) == 2


def test_an_empty_log_has_the_first_head(log: AuditLog, database: Database) -> None:
    assert log.head() == ChainHead(0, GENESIS)
    assert verify(database) == Permitted(ChainHead(0, GENESIS))


def test_events_come_in_order_and_by_page(log: AuditLog) -> None:
    for number in range(7):
        log.append(record(number))
    assert [event.record.numbers["round"] for event in log.events(after=2, limit=3)] == [2, 3, 4]
    assert [event.seq for event in log.events(after=6)] == [7]


def test_an_event_stands_with_what_it_records_or_not_at_all(log: AuditLog, database: Database) -> None:
    def fail_after_writing() -> None:
        with database.write() as session:
            log.append_in(session, record())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_writing()
    assert log.events() == []
    with database.write() as session:
        log.append_in(session, record(1))
        log.append_in(session, record(2))
    assert verify(database) == Permitted(log.head())
    assert log.head().seq == 2


@pytest.mark.parametrize(
    "change",
    [
        {"event": "something-else"},
        {"actor": "nobody"},
        {"actor": "operator:"},
        {"actor": "operator:a b"},
        {"object": "a path/with spaces"},
        {"codes": ("lower",)},
        {"numbers": {"Round": 1}},
        {"numbers": {"round": 1.5}},
        {"detail": 5},
        {"outcome": "maybe"},
        {"note": "more"},
    ],
)
def test_what_is_not_of_the_catalogue_cannot_be_written(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"event": AuditEvent.ORDER_SEEN, "actor": "station:compute", **change}
    with pytest.raises(ValidationError):
        AuditRecord(**fields)  # type: ignore[arg-type]


def test_a_detail_becomes_one_bounded_line(log: AuditLog, database: Database) -> None:
    log.append(record().model_copy(update={"detail": ""}))
    for text in ("two\nlines\x00\x1b[31m", "x" * 5000, "\ud800", "\u202efedcba", "é"):
        log.append(AuditRecord(event=AuditEvent.TRAIN_FAILED, actor="station:compute", detail=text))
    details = [event.record.detail for event in log.events()[1:]]
    assert details == ["two?lines??[31m", "x" * 2000, "?", "?fedcba", "é"]
    assert isinstance(verify(database), Permitted)


def test_a_chain_keeps_its_own_keys(database: Database) -> None:
    chain = Chain("audit", AuditRow)
    with pytest.raises(StateError), database.write() as session:
        chain.append(session, {"seq": 9})
    with pytest.raises(StateError), database.write() as session:
        chain.append(session, {"detail": "x" * (1 << 17)})


def test_an_event_that_cannot_be_written_stops_the_operation(log: AuditLog, database: Database) -> None:
    log.append(record())
    database.close()
    database.path.chmod(0o400)
    for suffix in ("-wal", "-shm"):
        Path(f"{database.path}{suffix}").unlink(missing_ok=True)
    database.path.unlink()
    database.path.mkdir()
    with pytest.raises(StorageError):
        log.append(record())


def test_an_event_is_durable_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom station.audit import *\n"
        "from station.storage import open_database\nlog = AuditLog(open_database(Path(sys.argv[1])))\n"
        "for _ in range(3):\n    log.append(AuditRecord(event=AuditEvent.ORDER_SEEN, actor='station:compute'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    database = open_database(path)
    assert AuditLog(database).head().seq == 3
    assert isinstance(verify(database), Permitted)
