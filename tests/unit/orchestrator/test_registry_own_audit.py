"""The orchestrator's audit: durable with its effect, thinned against floods, never with a secret; tokens and moments in it."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.registry.access import Access, Role
from orchestrator.registry.audit import MAX_KINDS, SEVERAL, THINNED_PER_HOUR, Action, Audit, AuditEvent
from orchestrator.registry.noting import Moments
from orchestrator.storage import Database, TokenRow, open_database
from policies.errors import NotFoundError, StateError, StorageError, TrustError
from policies.refusals import Permitted


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path / "state.db")) as found:
        yield found


class Steady:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(who: str, about: str = "") -> AuditEvent:
    return AuditEvent(action=Action.PROOF_REFUSED, who=who, about=about, outcome="refused", code="token")


def actions(audit: Audit) -> list[str]:
    return [one.event.action.value for one in audit.page()[0]]


def test_an_entry_is_durable_with_its_effect_or_neither_is(database: Database) -> None:
    audit = Audit(database)

    def fails() -> None:
        with database.transaction() as session:
            audit.append_in(session, refused("x"))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert audit.head().seq == 0
    audit.append(refused("x"))
    assert audit.head().seq == 1


def test_a_token_that_cannot_be_recorded_is_not_made(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(database)

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(audit, "append_in", full)
    with pytest.raises(StorageError):
        Access(database, audit).new_token(Role.BOARD, "b")
    with database.reading() as session:
        assert session.query(TokenRow).count() == 0


def test_entries_are_paged_and_verified(database: Database) -> None:
    audit = Audit(database)
    for number in range(7):
        audit.append(refused("x", str(number)))
    first, head = audit.page(limit=5)
    second, _ = audit.page(first[-1].seq)
    assert [one.event.about for one in (*first, *second)] == [str(number) for number in range(7)]
    assert head == audit.head()
    assert audit.verify() == Permitted(head)
    assert len(list(audit.lines())) == 7


def test_equal_entries_have_other_digests(database: Database) -> None:
    audit = Audit(database)
    assert audit.append(refused("x")).digest != audit.append(refused("x")).digest
    bodies = list(audit.lines())
    assert all(b'"salt":"' in body for body in bodies)


def test_what_strangers_cause_without_end_is_counted(database: Database) -> None:
    clock = Steady()
    audit = Audit(database, steady=clock)
    for _ in range(500):
        audit.append_thinned(refused("address 1"))
    audit.append_thinned(refused("address 2"))
    assert audit.head().seq == THINNED_PER_HOUR + 1
    clock.now = 3601.0
    audit.append_thinned(refused("address 1"))
    events = [one.event for one in audit.page()[0]]
    assert sum(1 + event.more for event in events if event.who == "address 1") == 501 + 1
    assert audit.head().seq == THINNED_PER_HOUR + 3


def test_from_more_addresses_than_are_told_apart_they_are_one_kind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.registry.audit.MAX_KINDS", 3)
    audit = Audit(database, steady=Steady())
    for number in range(100):
        audit.append_thinned(refused(f"address {number}"))
    assert audit.head().seq == 3 + THINNED_PER_HOUR
    audit.flush(all_of_it=True)
    events = [one.event for one in audit.page()[0]]
    assert sum(1 + event.more for event in events) == 100 + 1
    # None of them answers for the others.
    assert [event.who for event in events] == ["address 0", "address 1", "address 2"] + [SEVERAL] * 6
    assert events[-1].more == 100 - 3 - THINNED_PER_HOUR


def test_one_kind_of_attempt_without_end_hides_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.registry.audit.MAX_KINDS", 10)
    audit = Audit(database, steady=Steady())
    for number in range(30):
        audit.append_thinned(refused(f"address {number}"))
    before = audit.head().seq
    parties = [f"researcher:{number}" for number in range(10)]
    for who in parties:
        audit.append_thinned(AuditEvent(action=Action.ROLE_REFUSED, who=who, outcome="refused"))
    assert [one.event.who for one in audit.page(before)[0]] == parties


def test_an_entry_for_several_objects_names_none_of_them(database: Database) -> None:
    audit = Audit(database, steady=Steady())
    for number in range(20):
        audit.append_thinned(refused("researcher:a", f"object {number}"))
    audit.flush(all_of_it=True)
    last = audit.page()[0][-1].event
    assert (last.who, last.about, last.more) == ("researcher:a", SEVERAL, 20 - THINNED_PER_HOUR)


def test_what_a_known_party_does_is_written_once_an_hour_whatever_else_there_is(database: Database) -> None:
    clock = Steady()
    audit = Audit(database, steady=clock)
    fetched = [
        AuditEvent(action=Action.RESULT_FETCHED, who=f"researcher:{number}", about="model", outcome="begun")
        for number in range(MAX_KINDS + 50)
    ]
    for event in (*fetched, *fetched[:100]):
        audit.append_once(event)
    assert audit.head().seq == len(fetched)
    last = audit.page(len(fetched) - 1)[0][-1].event
    assert last == fetched[-1]
    clock.now = 3600.0
    audit.append_once(fetched[0])
    assert audit.head().seq == len(fetched) + 1


def test_what_could_not_be_written_once_is_written_the_next_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(database)

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(audit, "append_in", full)
        with pytest.raises(StorageError):
            audit.append_once(refused("x"))
    audit.append_once(refused("x"))
    assert audit.head().seq == 1


def test_each_object_is_a_kind_where_that_is_asked(database: Database) -> None:
    audit = Audit(database)
    for number in range(50):
        event = AuditEvent(action=Action.RESULT_FETCHED, who="researcher:a", about=f"file {number % 10}")
        audit.append_thinned(event, by_object=True)
    assert audit.head().seq == 10 * THINNED_PER_HOUR


def test_a_damaged_entry_is_an_error_that_says_what_to_do(database: Database) -> None:
    audit = Audit(database)
    audit.append(refused("x"))
    with database.transaction() as session:
        connection = session.connection()
        connection.exec_driver_sql("DROP TRIGGER audit_events_no_update")
        connection.exec_driver_sql("UPDATE audit_events SET body = '{}'")
    with pytest.raises(StateError) as found:
        audit.page()
    assert "verify" in found.value.hint


def test_a_token_ends_is_listed_and_says_when_it_was_last_used(database: Database) -> None:
    access = Access(database)
    lasting, ending = access.new_token(Role.BOARD, "b", 1.0), access.new_token(Role.AUDITOR, "eva", 1e-9)
    assert access.by_token(lasting).id == "board:b"
    with pytest.raises(TrustError) as over:
        access.by_token(ending)
    with pytest.raises(TrustError) as unknown:
        access.by_token("pht_x")
    assert over.value.message == unknown.value.message, "an old token tells who holds it nothing"
    now = datetime.now(UTC)
    newest, oldest = access.tokens()
    assert (newest.name, newest.state(now), newest.last_used) == ("eva", "expired", None)
    assert (oldest.name, oldest.state(now)) == ("b", "in use")
    assert oldest.expires is not None
    assert timedelta(hours=23) < oldest.expires - now <= timedelta(days=1)
    assert oldest.last_used is not None
    assert now - oldest.last_used < timedelta(minutes=5)


def test_one_token_of_a_party_is_revoked_alone_and_all_of_them_together(database: Database) -> None:
    access = Access(database)
    first, second, third = (access.new_token(Role.BOARD, "b") for _ in range(3))
    assert access.revoke_tokens(Role.BOARD, "b", token_id=access.tokens()[-1].id) == 1
    with pytest.raises(TrustError):
        access.by_token(first)
    assert access.by_token(second).name == "b"
    assert access.revoke_tokens(Role.BOARD, "b") == 2
    for token in (second, third):
        with pytest.raises(TrustError):
            access.by_token(token)
    with pytest.raises(NotFoundError):
        access.revoke_tokens(Role.BOARD, "b")
    assert actions(Audit(database)) == ["token-made"] * 3 + ["token-revoked"] * 3


def test_no_token_is_in_the_audit(database: Database) -> None:
    access = Access(database)
    token = access.new_token(Role.BOARD, "b")
    access.revoke_tokens(Role.BOARD, "b")
    assert not any(token[4:].encode() in line for line in Audit(database).lines())


def test_moments_are_written_now_and_then_and_known_at_once() -> None:
    clock, written = Steady(), []
    clock.now = 100.0
    moments = Moments(lambda due: written.append(dict(due)), interval_s=10.0, steady=clock)
    for _ in range(1000):
        moments.note("a")
        moments.note("b")
    assert [set(due) for due in written] == [{"a"}]
    assert moments.newest("b", None) is not None
    moments.flush()
    assert len(written) == 1, "not yet"
    clock.now = 110.0
    moments.flush()
    assert [set(due) for due in written] == [{"a"}, {"a", "b"}]
    moments.note("c")
    moments.flush(all_of_it=True)
    assert set(written[-1]) == {"c"}
    later = datetime.now(UTC) + timedelta(days=1)
    assert moments.newest("a", later) == later


def test_who_speaks_is_not_turned_away_because_a_moment_cannot_be_noted() -> None:
    def full(_: object) -> None:
        raise StorageError("the disk is full")

    Moments(full).note("a")
