"""Recorded releases: answered once, repeated byte for byte, counted for ever, whole or absent."""

from dataclasses import replace
from pathlib import Path

import pytest
from egress_documents import ORDER
from egress_station import Records, guarded
from sqlalchemy.exc import IntegrityError

from policies.documents import digest_of, digest_of_file
from policies.errors import StateError
from policies.refusals import Permitted, RefusalCode, Refused
from policies.wire.instructions import Status, decode_reply
from station.audit import AuditEvent, verify
from station.egress.records.ledger import MessageType, verify_ledger
from station.egress.records.releases import Recorded


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records.open(tmp_path)


def recorded(outcome: Recorded | Refused) -> Recorded:
    assert isinstance(outcome, Recorded), outcome
    return outcome


def test_a_release_is_recorded_with_audit_ledger_and_counter(records: Records, tmp_path: Path) -> None:
    release = guarded(tmp_path)
    stored = recorded(records.record(release)).release
    assert release.arrays is not None
    assert stored.arrays is not None
    assert digest_of_file(stored.arrays) == stored.arrays_digest == release.arrays.digest
    assert not release.arrays.path.exists()
    reply = decode_reply(stored.reply)
    assert reply.status is Status.RELEASED
    assert reply.release is not None
    assert reply.release.digest == stored.arrays_digest

    (entry,) = records.ledger.entries()
    assert entry.entry.type is MessageType.RELEASE
    assert (entry.entry.digest, entry.entry.size) == (digest_of(stored.reply), len(stored.reply))
    assert (entry.entry.arrays_digest, entry.entry.rules_digest) == (
        stored.arrays_digest,
        release.rules_digest,
    )
    assert entry.entry.capacity_bits == release.capacity_bits == records.store.capacity_bits(stored)
    assert release.capacity_bits > 8 * 4 * 16, "of sixteen numbers and more"
    assert records.audit.events()[-1].record.event is AuditEvent.RELEASE_RECORDED
    assert records.audit.events()[-1].record.numbers["capacity_bits"] == release.capacity_bits
    assert reply.audit_head == records.audit.head().digest
    assert records.store.releases_used("cxr-finding") == 1
    assert isinstance(verify(records.database), Permitted)
    assert isinstance(verify_ledger(records.database), Permitted)


def test_a_repeat_is_answered_byte_for_byte(records: Records, tmp_path: Path) -> None:
    first = recorded(records.record(guarded(tmp_path)))
    again = recorded(records.record(guarded(tmp_path, loss=0.9), attempt=2))
    assert (first.repeated, again.repeated) == (False, True)
    assert again.release == first.release == records.store.find(ORDER, 1, "train")
    assert records.store.releases_used("cxr-finding") == 1
    assert len(records.ledger.entries()) == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_rounds_and_stages_are_answered_apart(records: Records, tmp_path: Path) -> None:
    for round_ in (1, 2):
        recorded(records.record(guarded(tmp_path, round_)))
    evaluation = replace(guarded(tmp_path), stage="evaluate", arrays=None)
    recorded(records.record(evaluation))
    assert [(item.round, item.stage) for item in records.store.list()] == [
        (1, "train"),
        (2, "train"),
        (1, "evaluate"),
    ]
    assert records.store.find(ORDER, 3, "train") is None
    assert records.store.list("sha256:" + "0" * 64) == []
    assert records.store.releases_used("cxr-finding") == 3
    assert records.store.releases_used("other") == 0


def test_the_last_look_can_refuse_and_nothing_leaves(records: Records, tmp_path: Path) -> None:
    release = guarded(tmp_path)
    refused = records.record(release, check=lambda _session: Refused.because(RefusalCode.CONSENT_WITHDRAWN))
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.CONSENT_WITHDRAWN
    assert records.store.find(ORDER, 1, "train") is None
    assert records.ledger.entries() == []
    assert records.store.releases_used("cxr-finding") == 0
    event = records.audit.events()[-1].record
    assert (event.event, event.outcome, event.codes) == (
        AuditEvent.RELEASE_REFUSED,
        "refused",
        ("CONSENT_WITHDRAWN",),
    )
    assert release.arrays is not None
    assert not release.arrays.path.exists()


def test_the_policys_releases_run_out(records: Records, tmp_path: Path) -> None:
    recorded(records.record(guarded(tmp_path, 1), maximum=2))
    recorded(records.record(guarded(tmp_path, 2), maximum=2))
    refused = records.record(guarded(tmp_path, 3), maximum=2)
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.BUDGET_RELEASES
    # What was answered before is answered still.
    assert recorded(records.record(guarded(tmp_path, 1), maximum=2)).repeated


def test_a_fault_while_the_reply_is_made_records_nothing(records: Records, tmp_path: Path) -> None:
    def fail(_heads: object) -> bytes:
        raise StateError("no reply")

    with pytest.raises(StateError, match="no reply"):
        records.record(guarded(tmp_path), make=fail)
    assert records.store.find(ORDER, 1, "train") is None
    assert records.store.releases_used("cxr-finding") == 0
    assert records.ledger.entries() == []
    assert records.audit.head().seq == 1
    assert not recorded(records.record(guarded(tmp_path))).repeated


def test_an_order_that_was_never_seen_releases_nothing(records: Records, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        records.record(replace(guarded(tmp_path), order_digest="sha256:" + "9" * 64))
    assert records.ledger.entries() == []


def test_a_sweep_removes_only_what_no_release_names(records: Records, tmp_path: Path) -> None:
    stored = recorded(records.record(guarded(tmp_path))).release
    (tmp_path / "releases" / "orphan.safetensors").write_bytes(b"x")
    assert records.store.sweep() == 1
    assert records.store.sweep() == 0
    assert stored.arrays is not None
    assert stored.arrays.exists()


def test_lost_arrays_are_a_fault_and_not_another_answer(records: Records, tmp_path: Path) -> None:
    stored = recorded(records.record(guarded(tmp_path))).release
    assert stored.arrays is not None
    stored.arrays.write_bytes(b"short")
    with pytest.raises(StateError, match="lost its arrays"):
        records.store.find(ORDER, 1, "train")
    with pytest.raises(StateError, match="lost its arrays"):
        records.record(guarded(tmp_path))
    assert len(records.store.list()) == 1
