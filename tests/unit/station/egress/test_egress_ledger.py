"""The egress ledger: one chained entry for every message that leaves."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from policies.refusals import Permitted
from station.audit import AuditEvent, AuditLog, AuditRecord, ChainHead, export, verify, verify_export
from station.egress.records.ledger import (
    LEDGER_CHAIN,
    RULES,
    EgressLedger,
    LedgerEntry,
    MessageType,
    verify_ledger,
)
from station.storage import Database, open_database

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
STATUS = LedgerEntry(
    type=MessageType.STATUS, digest="sha256:" + "a" * 64, size=300, order_digest="sha256:" + "5" * 64, round=2
)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


@pytest.fixture
def ledger(database: Database) -> EgressLedger:
    return EgressLedger(database, clock=lambda: NOW)


def test_every_type_of_the_closed_list_can_be_entered(ledger: EgressLedger, database: Database) -> None:
    for kind in MessageType:
        ledger.append(STATUS.model_copy(update={"type": kind}))
    assert [stored.entry.type for stored in ledger.entries()] == list(MessageType)
    assert verify_ledger(database) == Permitted(ledger.head())


def test_an_entry_is_read_back_as_it_was_written(ledger: EgressLedger) -> None:
    head = ledger.append(STATUS)
    (stored,) = ledger.entries()
    # A message of no contract is bound by the closed list of its type.
    bound = STATUS.model_copy(update={"rules_digest": RULES[MessageType.STATUS]})
    assert (stored.seq, stored.time, stored.entry, stored.digest) == (1, NOW, bound, head.digest)


@pytest.mark.parametrize(
    "change", [{"type": "log"}, {"digest": "x"}, {"size": -1}, {"stage": "other"}, {"text": "hello"}]
)
def test_nothing_else_can_be_entered(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LedgerEntry.model_validate({**STATUS.model_dump(), **change})


def test_ledger_and_audit_are_two_chains(ledger: EgressLedger, database: Database, tmp_path: Path) -> None:
    AuditLog(database).append(AuditRecord(event=AuditEvent.ORDER_SEEN, actor="station:compute"))
    ledger.append(STATUS)
    assert isinstance(audit_head := verify(database), Permitted)
    assert isinstance(ledger_head := verify_ledger(database), Permitted)
    assert audit_head.value.digest != ledger_head.value.digest
    assert export(database, tmp_path / "egress.jsonl", chain=LEDGER_CHAIN) == ledger.head()
    assert verify_export(tmp_path / "egress.jsonl", chain="egress") == Permitted(ledger.head())
    assert not isinstance(verify_export(tmp_path / "egress.jsonl", chain="audit"), Permitted)
    assert not isinstance(verify_ledger(database, ChainHead(2, "sha256:" + "b" * 64)), Permitted)
