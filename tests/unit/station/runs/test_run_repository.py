"""The record of orders: idempotent, audited with each change, counted for ever."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from policies.errors import NotFoundError, StateError, UsageError
from policies.refusals import Permitted, RefusalCode
from station.audit import AuditEvent, AuditLog, verify
from station.runs import Decision, NewOrder, RunEvent, RunRepository, RunState
from station.storage import Database, open_database

DIGEST = "sha256:" + "5" * 64


def order(number: int = 5, policy: str = "cxr-finding") -> NewOrder:
    return NewOrder(f"sha256:{number:064x}" if number != 5 else DIGEST, f"{number:032x}", b"{}", policy, 1)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path / "station.db")


@pytest.fixture
def audit(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def runs(database: Database, audit: AuditLog) -> RunRepository:
    return RunRepository(database, audit)


def test_an_order_is_seen_once(runs: RunRepository, audit: AuditLog) -> None:
    parties = {"requester": "requester:umc-demo", "purpose": "health-research"}
    first = runs.see(replace(order(), **parties))
    assert runs.see(order()) == first == runs.get(DIGEST)
    assert (first.state, first.decision, first.failures, first.started) == (
        RunState.SEEN,
        Decision.NONE,
        0,
        False,
    )
    runs.transition(DIGEST, RunEvent.ADMIT)
    runs.record_failure(DIGEST, "TRAIN_CRASHED")
    records = [event.record for event in audit.events()]
    assert [record.event for record in records] == [
        AuditEvent.ORDER_SEEN,
        AuditEvent.ORDER_ADMITTED,
        AuditEvent.TRAIN_FAILED,
    ]
    assert {(record.on_behalf_of, record.purpose) for record in records} == {tuple(parties.values())}
    assert runs.get("sha256:" + "0" * 64) is None


def test_each_change_is_audited_with_it(runs: RunRepository, audit: AuditLog, database: Database) -> None:
    runs.see(order())
    for event in (RunEvent.ADMIT, RunEvent.PREPARED, RunEvent.BEGIN, RunEvent.ANSWERED, RunEvent.FINISH):
        run = runs.transition(DIGEST, event)
    assert run.spent
    assert run.finished is not None
    assert [item.record.event for item in audit.events()] == [
        AuditEvent.ORDER_SEEN,
        AuditEvent.ORDER_ADMITTED,
        *[AuditEvent.RUN_CHANGED] * 4,
    ]
    assert audit.events()[-1].record.detail == "ready -> finished"
    assert isinstance(verify(database), Permitted)


def test_what_cannot_happen_changes_nothing(runs: RunRepository, audit: AuditLog) -> None:
    before = runs.see(order())
    with pytest.raises(StateError, match="cannot happen"):
        runs.transition(DIGEST, RunEvent.BEGIN)
    assert runs.get(DIGEST) == before
    assert len(audit.events()) == 1
    with pytest.raises(NotFoundError):
        runs.transition("sha256:" + "0" * 64, RunEvent.ADMIT)


def test_a_change_that_cannot_be_audited_does_not_happen(runs: RunRepository, database: Database) -> None:
    runs.see(order())
    with database.write() as session:
        session.execute(
            text("CREATE TRIGGER no_audit BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'no'); END")
        )
    with pytest.raises(Exception, match="no"):
        runs.transition(DIGEST, RunEvent.ADMIT)
    run = runs.get(DIGEST)
    assert run is not None
    assert run.state is RunState.SEEN


def test_a_refusal_keeps_its_code(runs: RunRepository, audit: AuditLog) -> None:
    runs.see(order())
    run = runs.transition(
        DIGEST, RunEvent.REFUSE, code=RefusalCode.CONSENT_STALE, detail="the consent list is old"
    )
    assert (run.state, run.code) == (RunState.REFUSED, "CONSENT_STALE")
    record = audit.events()[-1].record
    assert (record.event, record.outcome, record.codes) == (
        AuditEvent.ORDER_REFUSED,
        "refused",
        ("CONSENT_STALE",),
    )


def test_the_operators_word_is_recorded_under_their_name(runs: RunRepository, audit: AuditLog) -> None:
    runs.see(order())
    runs.transition(DIGEST, RunEvent.ASK_OPERATOR)
    assert runs.decide(DIGEST, Decision.HELD, "j.smit").state is RunState.HELD
    run = runs.decide(DIGEST, Decision.APPROVED, "j.smit")
    assert (run.state, run.decision, run.decided_by) == (RunState.PREPARING, Decision.APPROVED, "j.smit")
    assert runs.decide(DIGEST, Decision.STOPPED, "k.bos").state is RunState.STOPPED
    events = [(item.record.event, item.record.actor) for item in audit.events()[-3:]]
    assert events == [
        (AuditEvent.OPERATOR_HELD, "operator:j.smit"),
        (AuditEvent.OPERATOR_APPROVED, "operator:j.smit"),
        (AuditEvent.OPERATOR_STOPPED, "operator:k.bos"),
    ]
    with pytest.raises(StateError):
        runs.decide(DIGEST, Decision.APPROVED, "j.smit")
    assert runs.list()[0].decision is Decision.STOPPED
    for decision, operator in ((Decision.NONE, "j.smit"), (Decision.HELD, "J. Smit"), (Decision.HELD, "")):
        with pytest.raises(UsageError):
            runs.decide(DIGEST, decision, operator)


def test_failures_are_counted_for_ever(runs: RunRepository, audit: AuditLog) -> None:
    runs.see(order())
    assert [runs.record_failure(DIGEST, RefusalCode.TRAIN_CRASHED) for _ in range(3)] == [1, 2, 3]
    assert runs.record_failure(DIGEST, "NO_IMAGES") == 4
    assert audit.events()[-1].record.codes == ("NO_IMAGES",)
    run = runs.get(DIGEST)
    assert run is not None
    assert (run.failures, run.code) == (4, "NO_IMAGES")


def test_runs_of_a_policy_are_counted_when_they_hold_resources_and_ever_after(runs: RunRepository) -> None:
    for number in (1, 2, 3):
        runs.see(order(number))
    runs.see(order(4, "other"))
    first, second = order(1).order_digest, order(2).order_digest
    assert runs.runs_used("cxr-finding") == 0
    runs.transition(first, RunEvent.ADMIT)
    assert runs.runs_used("cxr-finding") == 1
    assert runs.runs_used("cxr-finding", besides=first) == 0
    runs.transition(first, RunEvent.REFUSE, code=RefusalCode.IMAGE_UNAVAILABLE)
    assert runs.runs_used("cxr-finding") == 0
    runs.transition(second, RunEvent.ADMIT)
    runs.transition(second, RunEvent.PREPARED)
    runs.transition(second, RunEvent.FINISH)
    assert runs.runs_used("cxr-finding") == 1
    assert runs.runs_used("other") == 0


def test_what_is_stated_of_a_policys_runs_only_grows(runs: RunRepository, database: Database) -> None:
    def started() -> int:
        with database.read() as session:
            return runs.runs_started_in(session, "cxr-finding")

    for number in (1, 2):
        runs.see(order(number))
        runs.transition(order(number).order_digest, RunEvent.ADMIT)
    assert (runs.runs_used("cxr-finding"), started()) == (2, 0)
    runs.transition(order(1).order_digest, RunEvent.PREPARED)
    runs.transition(order(2).order_digest, RunEvent.REFUSE, code=RefusalCode.IMAGE_UNAVAILABLE)
    assert (runs.runs_used("cxr-finding"), started()) == (1, 1)
    runs.transition(order(1).order_digest, RunEvent.HOLD)
    assert started() == 1


def test_orders_are_listed_by_state_oldest_first(runs: RunRepository) -> None:
    for number in (3, 1, 2):
        runs.see(order(number))
    runs.transition(order(1).order_digest, RunEvent.ADMIT)
    assert [run.order_id for run in runs.list()] == [order(number).order_id for number in (3, 1, 2)]
    assert [run.order_id for run in runs.list([RunState.PREPARING])] == [order(1).order_id]


def test_a_change_can_ride_in_a_callers_transaction(runs: RunRepository, database: Database) -> None:
    runs.see(order())

    def fail_after_changing() -> None:
        with database.write() as session:
            assert runs.transition_in(session, DIGEST, RunEvent.ADMIT).state is RunState.PREPARING
            assert runs.get_in(session, DIGEST).state is RunState.PREPARING
            assert runs.runs_used_in(session, "cxr-finding") == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_changing()
    run = runs.get(DIGEST)
    assert run is not None
    assert run.state is RunState.SEEN
