"""A station from a backup: nothing runs until it is reconciled and consent came anew; a clone is a fork; what was spent stays spent."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from board_kit import NOW
from continuity_kit import WitnessedStation
from sqlalchemy import select
from station_kit import prepare

from policies.documents import digest_of, format_moment
from policies.errors import NotFoundError, RefusedError, UsageError
from policies.refusals import RefusalCode
from policies.station_heads import open_heads, sign_heads
from policies.station_statement import ChainEnd, open_statement
from policies.wire.instructions import Kind, Status
from station.audit.events import AuditEvent
from station.continuity import StatementRow
from station.runs import NewOrder, RunEvent

NOTHING = ChainEnd(seq=0, digest="sha256:" + "0" * 64)
LIMITS = {"runs.runs": 3, "runs.releases": 100}


@pytest.fixture
def station(tmp_path: Path) -> Iterator[WitnessedStation]:
    made = WitnessedStation.witnessed(tmp_path / "station-home", policy=LIMITS)
    yield made
    made.close()


def order_now(kit: WitnessedStation) -> bytes:
    """An order issued just now, by the station's clock."""
    kit.clock.forward(seconds=5)
    kit.policy_is_fresh()
    return kit.order(
        issued=format_moment(kit.clock()), expires=format_moment(kit.clock() + timedelta(days=1))
    )


def run(kit: WitnessedStation, rounds: int = 1) -> bytes:
    """A run with this many releases, still open."""
    envelope = order_now(kit)
    assert kit.prepare(envelope).status is Status.ACCEPTED
    for number in range(1, rounds + 1):
        assert kit.message(envelope, Kind.TRAIN, number)[0].status is Status.RELEASED
    return envelope


def refused(kit: WitnessedStation, envelope: bytes) -> str | None:
    """The code that every way to run something is refused with."""
    started, asked = len(kit.sandbox.started), len(kit.sandbox.asked)
    reply, _ = kit.service.handle(prepare(envelope), None)
    message, arrays = kit.message(envelope, Kind.TRAIN, 2)
    assert reply.status is message.status is Status.REFUSED
    assert arrays is None
    assert (started, asked) == (len(kit.sandbox.started), len(kit.sandbox.asked)), "something ran"
    return reply.code


def restored(kit: WitnessedStation, tmp_path: Path) -> tuple[bytes, bytes]:
    """One release, a backup, two more releases under another order, and the backup in place again."""
    before = run(kit)
    kit.stated()
    kit.vouch()
    backup = kit.back_up(tmp_path / "backup")
    after = run(kit, rounds=2)
    kit.stated()
    kit.vouch()
    kit.restore(backup)
    return before, after


def test_a_station_that_was_never_witnessed_starts_and_runs(station: WitnessedStation) -> None:
    station.registrar.standing = None
    station.again()
    assert station.records.reason() is None
    assert run(station)


def test_a_witnessed_station_that_starts_again_runs_on(station: WitnessedStation) -> None:
    envelope = run(station)
    station.stated()
    station.vouch()
    station.again()
    assert station.records.reason() is None
    assert station.prepare(envelope).status is Status.ACCEPTED


def test_nothing_runs_on_a_backup(station: WitnessedStation, tmp_path: Path) -> None:
    before, after = restored(station, tmp_path)
    for envelope in (before, after, order_now(station)):
        assert refused(station, envelope) == "STATION_RESTORED"
    station.again()
    assert refused(station, order_now(station)) == "STATION_RESTORED", "also after another start"
    stated = station.registrar.standing
    station.messenger.look()
    assert station.registrar.standing == stated, "a restored station states nothing"
    assert station.registrar.refused == []
    assert AuditEvent.RESTORE_DETECTED.value in station.events()


def test_reconciled_it_runs_again_and_what_was_used_stays_used(
    station: WitnessedStation, tmp_path: Path
) -> None:
    before, after = restored(station, tmp_path)
    assert station.releases.releases_used("cxr-classification") == 1
    plan = station.reconcile()
    (lack,) = plan.lacks
    assert (lack.runs_here, lack.runs_stated, lack.releases_here, lack.releases_stated) == (1, 2, 1, 3)
    assert plan.lost_audit.last > plan.lost_audit.first
    assert station.releases.releases_used("cxr-classification") == 3
    assert station.runs.runs_used("cxr-classification") == 2

    fresh = order_now(station)
    assert refused(station, fresh) == "STATION_RESTORED", "consent was not imported anew"
    station.intake.consent(source=NOW - timedelta(days=1), p0="consent")
    station.catalogue.sync()
    station.records.look()
    assert refused(station, fresh) == "STATION_RESTORED", "a register from before the restore"
    station.import_consent()

    for envelope, codes in ((before, {"RUN_STOPPED"}), (after, {"ORDER_SPENT"}), (fresh, {None})):
        if None in codes:
            assert station.prepare(envelope).status is Status.ACCEPTED
            assert station.message(envelope)[0].status is Status.RELEASED
        else:
            assert refused(station, envelope) in codes
    assert station.releases.releases_used("cxr-classification") == 4
    assert station.runs.runs_used("cxr-classification") == 3
    assert refused(station, order_now(station)) == "BUDGET_RUNS", "three runs: one here, one lost, one since"
    assert AuditEvent.RECORDS_RECONCILED.value in station.events()


def test_an_order_from_before_is_spent_though_nobody_stated_it(
    station: WitnessedStation, tmp_path: Path
) -> None:
    never_stated = order_now(station)
    restored(station, tmp_path)
    station.reconcile()
    station.import_consent()
    assert refused(station, never_stated) == "ORDER_SPENT"


def test_the_restoration_is_public_and_no_fork(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    station.reconcile()
    station.import_consent()
    stated = station.stated()
    assert station.registrar.refused == []
    heads = station.vouch()
    assert heads.forks == ()
    (told,) = heads.restorations
    assert told.restored == stated.restored
    assert (stated.epoch, stated.restored is not None) == (2, True)
    assert station.records.reason() is None
    station.again()
    assert station.records.reason() is None
    assert run(station)
    assert station.stated().restored == stated.restored, "in every statement of the epoch"


def test_twice_restored(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    station.reconcile()
    station.import_consent()
    station.stated()
    station.vouch()
    station.restore(tmp_path / "backup")
    assert refused(station, order_now(station)) == "STATION_RESTORED"
    assert station.reconcile().epoch == 2
    station.import_consent()
    assert station.stated().epoch == 3
    assert [one.epoch for one in station.vouch().restorations] == [2, 3]


def test_of_two_copies_that_run_one_is_a_fork(station: WitnessedStation, tmp_path: Path) -> None:
    run(station)
    station.stated()
    station.vouch()
    copy = station.back_up(tmp_path / "copy")
    station.stated()
    # The copy comes to life while nobody can be reached, and states something of its own.
    station.registrar.away = True
    station.restore(copy)
    assert station.records.reason() is None
    station.audit.append(station.audit.events()[0].record)
    station.registrar.away = False
    station.messenger._send()
    assert station.registrar.refused == ["STATEMENT_FORK"]
    assert refused(station, order_now(station)) == "STATION_RESTORED"


def test_when_one_copy_is_reconciled_the_other_stops(station: WitnessedStation, tmp_path: Path) -> None:
    run(station)
    station.stated()
    copy = station.back_up(tmp_path / "copy")
    original = station.back_up(tmp_path / "original")
    station.stated()
    station.restore(copy)
    station.reconcile()
    station.import_consent()
    station.stated()
    station.restore(original)
    assert refused(station, order_now(station)) == "STATION_RESTORED"
    assert station.registrar.refused == []


def test_an_orchestrator_that_hides_statements_cannot_hide_them_from_the_witness(
    station: WitnessedStation, tmp_path: Path
) -> None:
    station.stated()
    station.vouch()
    backup = station.back_up(tmp_path / "backup")
    run(station)
    station.stated()
    station.vouch()
    station.registrar.withholds_statements = True
    station.restore(backup)
    station.look_at_heads()
    assert refused(station, order_now(station)) == "STATION_RESTORED"
    with pytest.raises(NotFoundError):
        station.reconcile()
    station.registrar.withholds_statements = False
    station.reconcile()


def test_an_orchestrator_that_hands_out_an_older_statement_is_not_reconciled_with(
    station: WitnessedStation, tmp_path: Path
) -> None:
    station.stated()
    station.vouch()
    backup = station.back_up(tmp_path / "backup")
    older = station.stated()
    shown = station.registrar.standing
    run(station)
    assert station.stated().sequence > older.sequence
    station.vouch()
    station.registrar.standing = shown
    station.restore(backup)
    station.look_at_heads()
    with pytest.raises(RefusedError, match="witness has seen a newer"):
        station.reconcile()


def test_a_witness_that_is_withheld_is_waited_for(station: WitnessedStation, tmp_path: Path) -> None:
    station.stated()
    station.vouch()
    backup = station.back_up(tmp_path / "backup")
    station.stated()
    shown = station.registrar.standing
    run(station)
    newest = station.stated()
    station.vouch()
    honest = station.registrar.standing
    station.registrar.standing, station.registrar.withholds_heads = shown, True
    station.clock.forward(seconds=1)
    station.restore(backup)
    assert refused(station, order_now(station)) == "STATION_RESTORED"
    with pytest.raises(RefusedError, match="witness was not heard") as caught:
        station.reconcile()
    assert caught.value.code == "STATION_UNCONFIRMED"
    station.registrar.withholds_heads = False
    with pytest.raises(RefusedError, match="witness has seen a newer"):
        station.reconcile()
    # What the witness said before the restore was seen does not do, though it is all that was said.
    station.registrar.standing = honest
    with pytest.raises(RefusedError, match="witness was not heard"):
        station.reconcile()
    station.vouch()
    assert station.reconcile().stated_sequence == newest.sequence


@pytest.mark.parametrize("states_between", [False, True])
def test_reconciled_with_too_little_it_is_reconciled_again(
    station: WitnessedStation, tmp_path: Path, states_between: bool
) -> None:
    backup = station.back_up(tmp_path / "backup")
    station.stated()
    shown = station.registrar.standing
    run(station, rounds=2)
    newest = station.stated()
    honest = station.registrar.standing
    station.registrar.standing = shown
    station.restore(backup)
    assert station.reconcile().stated_sequence < newest.sequence, "no witness was ever heard"
    station.import_consent()
    if states_between:
        assert station.stated().epoch == 2
    assert station.releases.releases_used("cxr-classification") == 0

    station.registrar.standing = honest
    station.messenger.fetch_evidence()
    assert refused(station, order_now(station)) == "STATION_RESTORED"
    assert station.reconcile().stated_sequence == newest.sequence
    assert station.releases.releases_used("cxr-classification") == 2
    station.import_consent()
    again = station.stated()
    assert again.epoch == 3
    assert station.registrar.refused == []
    station.vouch()
    station.registrar.standing = honest
    station.messenger.fetch_evidence()
    assert station.records.reason() is None, "it was reconciled with that one"
    assert run(station)


def test_what_the_records_stated_themselves_is_no_evidence_against_them(
    station: WitnessedStation, tmp_path: Path
) -> None:
    """A backup that is put back states beyond what others hold, while nobody hears it."""
    backup = station.back_up(tmp_path / "backup")
    run(station)
    station.stated()
    station.registrar.away = True
    station.restore(backup)
    for _ in range(3):
        own = station.records.state()
    station.registrar.away = False
    station.messenger.fetch_evidence()
    assert station.records.restored
    assert station.reconcile().stated_sequence < open_statement(own, station.identity.public_hex).sequence
    station.import_consent()
    assert not station.records.consider_statement(own)
    assert station.stated().epoch == 2
    assert station.registrar.refused == []


def test_the_reconciliation_is_not_before_what_it_knows_of(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    envelope = order_now(station)
    issued = station.clock()
    station.clock.forward(seconds=1)
    station.vouch()
    heard = station.clock()
    station.clock.forward(seconds=-60)
    station.reconcile()
    assert station.records.spent(digest_of(envelope), issued) is not None
    assert station.records.spent(digest_of(envelope), heard) is not None
    assert station.records.spent(digest_of(envelope), heard + timedelta(seconds=1)) is None


def preparing(kit: WitnessedStation) -> str:
    """An order that is admitted, and whose container did not start yet."""
    envelope = order_now(kit)
    digest = digest_of(envelope)
    kit.runs.see(NewOrder(digest, "0" * 32, envelope, "cxr-classification", 1))
    kit.runs.transition(digest, RunEvent.ADMIT)
    return digest


@pytest.mark.parametrize("event", [RunEvent.REFUSE, RunEvent.HOLD, RunEvent.FINISH, RunEvent.STOP])
def test_an_order_that_comes_to_nothing_is_no_counter_that_went_back(
    station: WitnessedStation, event: RunEvent
) -> None:
    digest = preparing(station)
    assert station.stated().policies == ()
    station.runs.transition(digest, event, code=RefusalCode.IMAGE_UNAVAILABLE)
    station.stated()
    assert station.registrar.refused == []
    assert station.records.reason() is None


def test_a_backup_of_an_order_in_preparation_is_reconciled(station: WitnessedStation, tmp_path: Path) -> None:
    backup = station.back_up(tmp_path / "backup")
    run(station)
    stated = station.stated()
    assert [use.runs for use in stated.policies] == [1]
    station.registrar.away = True
    station.restore(backup)
    preparing(station)
    station.registrar.away = False
    station.reconcile()
    station.import_consent()
    assert [use.runs for use in station.stated().policies] == [1]
    assert station.registrar.refused == []
    assert station.records.reason() is None


def by_the_witness(kit: WitnessedStation, **changes: object) -> None:
    """A document with the witness's key that says this of the station, and no witness ever made."""
    assert kit.registrar.heads is not None
    key = kit.board.keys["witness"]
    heads = open_heads(kit.registrar.heads, frozenset({key.public_hex}))
    time = changes.pop("time", kit.clock())
    entries = tuple(entry.model_copy(update=changes) for entry in heads.stations)
    kit.registrar.heads = sign_heads(heads.model_copy(update={"time": time, "stations": entries}), key)
    kit.look_at_heads()


def test_what_only_a_stolen_key_of_the_witness_said_ends_with_it(station: WitnessedStation) -> None:
    station.stated()
    station.vouch()
    station.clock.forward(seconds=30)
    by_the_witness(station, sequence=1000)
    assert refused(station, order_now(station)) == "STATION_RESTORED"
    station.again()
    assert refused(station, order_now(station)) == "STATION_RESTORED", "the same document again"
    station.vouch()
    assert station.records.reason() is None
    assert AuditEvent.RESTORE_TAKEN_BACK.value in station.events()
    assert run(station)


def test_what_a_statement_of_ours_showed_is_not_taken_back(station: WitnessedStation, tmp_path: Path) -> None:
    restored(station, tmp_path)
    station.clock.forward(seconds=30)
    with station.database.read() as session:
        own = session.scalars(select(StatementRow).order_by(StatementRow.sequence.desc()).limit(1)).one()
        stated = {"sequence": own.sequence, "statement": own.digest}
    by_the_witness(station, **stated, audit=NOTHING, egress=NOTHING)
    assert refused(station, order_now(station)) == "STATION_RESTORED"


def test_a_document_from_the_future_is_not_taken(station: WitnessedStation) -> None:
    station.stated()
    station.vouch()
    by_the_witness(station, time=station.clock() + timedelta(minutes=6), sequence=1000)
    assert station.records.reason() is None
    station.clock.forward(seconds=1)
    station.stated()
    heads = station.vouch()
    with station.database.read() as session:
        assert station.records.row_in(session).heads_time == heads.time
    by_the_witness(station, time=station.clock() + timedelta(minutes=4))
    with station.database.read() as session:
        assert station.records.row_in(session).heads_time == station.clock() + timedelta(minutes=4)


def test_an_old_document_of_the_witness_does_not_do(station: WitnessedStation, tmp_path: Path) -> None:
    station.stated()
    station.vouch()
    envelope = run(station)
    old, first = station.registrar.heads, station.registrar.standing
    station.clock.forward(minutes=50)
    station.policy_is_fresh()
    assert station.records.reason() is None
    station.clock.forward(minutes=20)
    station.policy_is_fresh()
    assert refused(station, envelope) == "STATION_UNCONFIRMED"
    station.registrar.heads = old
    station.again()
    assert refused(station, envelope) == "STATION_UNCONFIRMED", "a start changes nothing"
    # The witness is back, but is not shown what this station states: it vouches for what it saw an hour ago.
    newer, station.registrar.standing = station.registrar.standing, first
    station.vouch()
    station.registrar.standing = newer
    assert refused(station, envelope) == "STATION_UNCONFIRMED"
    station.stated()
    station.vouch()
    assert station.records.reason() is None
    assert station.prepare(envelope).status is Status.ACCEPTED


def test_offline_within_the_limit_a_station_starts(station: WitnessedStation) -> None:
    station.stated()
    station.vouch()
    station.registrar.away = True
    station.again()
    assert station.records.reason() is None


def test_a_foreign_document_says_nothing(station: WitnessedStation) -> None:
    from policies.station_heads import StationHeads

    station.stated()
    before = station.vouch()
    for forged in (sign_heads(before, station.board.keys["secretary"]), b"{}", b"\x00" * 100):
        station.registrar.heads = forged
        station.look_at_heads()
        assert station.records.reason() is None
    station.registrar.heads = sign_heads(
        StationHeads(board="thorax-board", time=station.clock()), station.board.keys["witness"]
    )
    station.look_at_heads()
    assert station.records.reason() is None, "a document that does not name us is no witness of us"


def test_there_is_nothing_to_reconcile_where_nothing_was_restored(station: WitnessedStation) -> None:
    station.stated()
    with pytest.raises(UsageError, match="nothing to reconcile"):
        station.reconcile()


def test_a_message_under_way_releases_nothing_once_the_restore_is_seen(
    station: WitnessedStation, tmp_path: Path
) -> None:
    from station_kit import in_the_middle

    backup = station.back_up(tmp_path / "backup")
    station.stated()
    station.registrar.away = True
    station.restore(backup)
    envelope = order_now(station)
    assert station.prepare(envelope).status is Status.ACCEPTED, "nobody has told it yet"
    station.registrar.away = False
    with in_the_middle(station, envelope) as (busy, replies):
        station.messenger.fetch_evidence()
        station.warm.revoke(station.gatekeeper.no_longer_in_force)
        busy.go_on.set()
    ((reply, _),) = replies
    assert reply.status in {Status.FAILED, Status.WITHHELD, Status.REFUSED}
    assert reply.code == "STATION_RESTORED"
    assert station.releases.list() == []
