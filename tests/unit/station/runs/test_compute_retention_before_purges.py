"""A database of before releases were purged: the retention of then removed arrays of ended orders and said so in no row."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from policies.errors import StateError
from station.audit import AuditEvent, AuditLog
from station.egress.records.ledger import EgressLedger
from station.egress.records.releases import ReleaseStore, arrays_name
from station.retention import ComputeRetention, ComputeTerms, Places
from station.storage import Database, open_database
from station.storage.database import COMPUTE_MIGRATIONS

DAYS = timedelta(days=3650)
MOMENT = "2026-11-22T12:00:00.000000Z"
ORDERS = {
    name: "sha256:" + name[0] * 64 for name in ("a finished", "b preparing", "c finished, its arrays here")
}
DATA = b"arrays"


def release(connection: Connection, order: str, round_: int, seq: int) -> None:
    connection.execute(
        text("INSERT INTO egress_ledger (seq, body, digest) VALUES (:seq, x'00', :seq)"), {"seq": seq}
    )
    connection.execute(
        text(
            "INSERT INTO releases (order_digest, round, stage, policy_id, reply, arrays_digest, arrays_size, ledger_seq, recorded) "
            "VALUES (:order, :round, 'train', 'study', :reply, 'sha256:0', :size, :seq, :moment)"
        ),
        {
            "order": order, "round": round_, "seq": seq, "moment": MOMENT, "size": len(DATA),
            "reply": b'{"num_examples": 70}',
        },
    )  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Made at 0007, each of three orders with a release; opened by this version."""
    old = Database(tmp_path / "station.db")
    config = Config()
    config.set_main_option("script_location", str(COMPUTE_MIGRATIONS).replace("%", "%%"))
    with old.connection() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for seq, (name, digest) in enumerate(ORDERS.items(), 1):
            connection.execute(
                text(
                    "INSERT INTO orders (order_digest, order_id, envelope, policy_id, policy_version, state, decision, "
                    "correlation_id, failures, started, first_seen, changed) "
                    "VALUES (:digest, :id, x'7b7d', 'study', 1, :state, 'none', '', 0, 1, :moment, :moment)"
                ),
                {"digest": digest, "id": str(seq), "state": name[2:].split(",")[0], "moment": MOMENT},
            )
            release(connection, digest, 1, seq)
    old.close()
    return open_database(tmp_path / "station.db")


def test_what_the_earlier_retention_removed_is_said_to_be_purged_and_what_is_damage_is_not(
    database: Database, tmp_path: Path
) -> None:
    audit = AuditLog(database)
    store = ReleaseStore(database, audit, EgressLedger(database), tmp_path / "releases")
    gone, damaged, here = ORDERS.values()
    (tmp_path / "releases" / arrays_name(here, 1, "train")).write_bytes(DATA)
    with database.connection() as connection:
        # Recorded since, and lost to the disk.
        release(connection, gone, 2, 9)
    with pytest.raises(StateError, match="lost its arrays"):
        store.find(gone, 1, "train")

    places = Places(tmp_path / "cohorts", tmp_path / "releases", tmp_path / "backups")
    now = datetime.fromisoformat(MOMENT)
    terms = ComputeTerms(cohorts=DAYS, released=DAYS, backups=DAYS)
    retention = ComputeRetention(database, audit, places, terms, tuple, lambda: now)
    assert retention.look() == 1

    found = store.find(gone, 1, "train")
    assert found is not None
    assert (found.purged, found.arrays, found.reply) == (now.astimezone(UTC), None, b"")
    kept = store.find(here, 1, "train")
    assert kept is not None
    assert (kept.purged, kept.arrays) == (None, tmp_path / "releases" / arrays_name(here, 1, "train"))
    for order, round_ in ((damaged, 1), (gone, 2)):
        with pytest.raises(StateError, match="lost its arrays"):
            store.find(order, round_, "train")
    assert [event.record.event for event in audit.events()] == [AuditEvent.RETENTION_ENFORCED]


def test_a_new_database_has_nothing_of_before(tmp_path: Path) -> None:
    with open_database(tmp_path / "station.db").read() as session:
        assert session.execute(text("SELECT count(*) FROM counters")).scalar_one() == 0
