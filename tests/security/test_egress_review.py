"""Attack on the review: a release that a person has to let go tries every other way out."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from catalogue_log import patient
from egress_documents import policy
from review_kit import (
    HOURS,
    PENDING,
    REVIEWED,
    Standstill,
    asked,
    digest,
    in_training,
    later,
    left,
    loss,
    nothing_left,
    park_one,
    parked,
    parked_files,
    review,
    reviewed,
    standing_still,
    waiting,
    withdraws,
)
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from station_kit import StationKit

from policies.errors import RefusedError, StateError, UsageError
from policies.manifest import TrainKind
from policies.refusals import Reason, RefusalCode
from policies.wire.instructions import Kind, Status
from station.audit.events import AuditEvent
from station.egress.review.reviews import ReviewState
from station.settings.review import ReviewSettings

SECRET = "it shows the hospital's own name"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standstill, bytes]]:
    with standing_still(tmp_path_factory.mktemp("alone")) as made:
        yield made


@pytest.fixture(scope="module")
def in_pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standstill, bytes]]:
    with standing_still(tmp_path_factory.mktemp("in-pairs"), people=2) as made:
        yield made


@pytest.fixture
def kit(alone: tuple[Standstill, bytes]) -> Iterator[StationKit]:
    with alone[0].going_on() as kit:
        yield kit


@pytest.fixture
def envelope(alone: tuple[Standstill, bytes]) -> bytes:
    """The order whose answer waits."""
    return alone[1]


@pytest.fixture
def two(in_pairs: tuple[Standstill, bytes]) -> Iterator[StationKit]:
    """Where two people have to release each."""
    with in_pairs[0].going_on() as kit:
        yield kit


@pytest.fixture
def envelope_of_two(in_pairs: tuple[Standstill, bytes]) -> bytes:
    """The order whose answer waits for two."""
    return in_pairs[1]


# -- before the word


def test_nothing_leaves_before_the_word_however_often_it_is_asked(kit: StationKit, envelope: bytes) -> None:
    for attempt in range(2, 6):
        reply, arrays = kit.message(envelope, attempt=attempt)
        assert (reply.status, reply.code, arrays) == (Status.PENDING, "REVIEW_PENDING", None)
        assert not reply.metrics
    # It was asked once, and what it answered then is what waits.
    assert kit.sandbox.asked == []
    assert (left(kit), kit.releases.list()) == ([], [])
    assert parked_files(kit) == ["1.safetensors"]


def test_what_waits_leaves_exactly_as_it_was_parked(kit: StationKit, envelope: bytes) -> None:
    arrays = (kit.paths.reviews / "1.safetensors").read_bytes()
    later(kit, minutes=30)
    assert kit.reviewing.release(1, "anna").state is ReviewState.RELEASED
    reply, sent = kit.message(envelope, attempt=7)
    assert (reply.status, loss(reply), sent) == (Status.RELEASED, 0.001, arrays)
    assert left(kit) == [(digest(envelope), 1)]
    assert parked_files(kit) == []
    # Sent again as it is, and never made again.
    assert kit.message(envelope, attempt=8) == (reply, sent)
    assert kit.sandbox.asked == []


def test_neither_container_nor_place_is_held_while_a_person_thinks(kit: StationKit) -> None:
    assert not kit.sandbox.running
    assert kit.warm.orders() == frozenset()
    assert list(kit.paths.cohorts.iterdir()) == []


def test_the_run_goes_on_after_the_word(kit: StationKit, envelope: bytes) -> None:
    kit.reviewing.release(1, "anna")
    assert asked(kit, envelope)[0] == "released"
    assert asked(kit, envelope, Kind.EVALUATE) == PENDING
    kit.reviewing.release(2, "anna")
    assert asked(kit, envelope, Kind.EVALUATE)[0] == "released"
    assert left(kit) == [(digest(envelope), 1)] * 2


def test_a_word_on_one_order_releases_no_other(kit: StationKit, envelope: bytes) -> None:
    first = envelope
    second = parked(kit)
    kit.reviewing.release(2, "anna")
    assert asked(kit, first) == PENDING
    assert asked(kit, second)[0] == "released"
    assert left(kit) == [(digest(second), 1)]


def test_approving_the_run_releases_nothing(kit: StationKit, envelope: bytes) -> None:
    with pytest.raises(StateError):
        kit.decide(envelope, "approve")
    kit.decide(envelope, "hold")
    kit.decide(envelope, "approve")
    assert asked(kit, envelope) == PENDING
    assert left(kit) == []


def test_a_new_life_of_the_station_still_waits_for_the_word(kit: StationKit, envelope: bytes) -> None:
    for _ in range(2):
        kit.again()
        assert kit.prepare(envelope).status is Status.ACCEPTED
        assert asked(kit, envelope) == PENDING
    # Nothing was started for it.
    assert kit.sandbox.started == []
    kit.reviewing.release(1, "anna")
    assert loss(kit.message(envelope)[0]) == 0.001


def test_a_hospital_that_asks_for_nobody_any_more_lets_go_nothing_that_waits(
    kit: StationKit, envelope: bytes
) -> None:
    _asks(kit, trains="policy", hours=1)
    assert asked(kit, envelope) == PENDING


def test_the_hospital_may_ask_where_the_policy_does_not(tmp_path: Path) -> None:
    kit = reviewed(tmp_path, policy={}, review=ReviewSettings(trains="always"))
    parked(kit)
    assert left(kit) == []
    kit.close()


@pytest.mark.parametrize(
    ("trains", "kinds"),
    [("always", set(TrainKind)), ("training", {TrainKind.TRAINING}), ("policy", set())],
)
def test_the_hospital_says_for_which_trains(kit: StationKit, trains: str, kinds: set[TrainKind]) -> None:
    _asks(kit, trains=trains)
    assert {kind for kind in TrainKind if kit.reviewing.is_asked(kind, policy())} == kinds
    # Where the policy asks for it, no hospital can do without.
    assert all(kit.reviewing.is_asked(kind, policy(human_review=True)) for kind in TrainKind)


@pytest.mark.parametrize(("hospital", "hours"), [(None, HOURS), (1, 1), (72, HOURS)])
def test_the_hospital_may_only_shorten_the_time(
    kit: StationKit, envelope: bytes, hospital: int | None, hours: int
) -> None:
    _asks(kit, hours=hospital)
    found = park_one(kit, envelope, 2)
    assert found.until - found.parked == timedelta(hours=hours)


def _asks(kit: StationKit, **changes: object) -> None:
    """The hospital changes its settings, and the station starts again."""
    kit.settings = kit.settings.model_copy(update={"review": ReviewSettings(**changes)})  # type: ignore[arg-type]
    kit.again()


# -- time-out and no


def test_nothing_leaves_after_its_time_by_being_asked(kit: StationKit, envelope: bytes) -> None:
    later(kit, hours=HOURS)
    for _ in range(3):
        assert asked(kit, envelope) == ("withheld", "REVIEW_TIMEOUT")
    nothing_left(kit)


def test_nothing_leaves_after_its_time_by_a_late_word(kit: StationKit, envelope: bytes) -> None:
    later(kit, hours=HOURS)
    with pytest.raises(UsageError, match="REVIEW_TIMEOUT"):
        kit.reviewing.release(1, "anna")
    nothing_left(kit)
    assert asked(kit, envelope) == ("withheld", "REVIEW_TIMEOUT")


def test_nothing_leaves_whose_time_ends_while_it_is_looked_at_once_more(
    kit: StationKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit.catalogue, "sync", lambda: later(kit, hours=HOURS))
    with pytest.raises(UsageError, match="REVIEW_TIMEOUT"):
        kit.reviewing.release(1, "anna")
    assert kit.reviewing.look() == 1
    nothing_left(kit)


def test_the_station_ends_it_by_itself_when_nobody_asks(kit: StationKit) -> None:
    later(kit, hours=HOURS - 1)
    assert kit.reviewing.look() == 0
    later(kit, hours=1)
    assert kit.reviewing.look() == 1
    assert (review(kit).state, review(kit).code) == (ReviewState.WITHHELD, RefusalCode.REVIEW_TIMEOUT)
    nothing_left(kit)


def test_what_a_person_withholds_stays_whatever_is_tried(kit: StationKit, envelope: bytes) -> None:
    kit.reviewing.withhold(1, "anna", SECRET)
    nothing_left(kit)
    with pytest.raises(UsageError, match="REVIEW_WITHHELD"):
        kit.reviewing.release(1, "bert")
    kit.again()
    for attempt in range(2, 5):
        reply, _ = kit.message(envelope, attempt=attempt)
        assert (reply.status, reply.code) == (Status.WITHHELD, "REVIEW_WITHHELD")
        assert SECRET not in reply.model_dump_json()
    nothing_left(kit)
    # No failure of the train's, and the run goes on.
    run = kit.runs.get(digest(envelope))
    assert run is not None
    assert run.failures == 0
    assert asked(kit, envelope, Kind.EVALUATE) == PENDING


def test_the_reason_is_told_inside_only(kit: StationKit) -> None:
    kit.reviewing.withhold(1, "anna", SECRET)
    assert [(word.operator, word.word, word.reason) for word in review(kit).words] == [
        ("anna", "withhold", SECRET)
    ]
    said = [
        event.record
        for event in kit.audit.events(limit=1000)
        if event.record.event is AuditEvent.RELEASE_WITHHELD
    ]
    assert [(record.actor, SECRET in record.detail) for record in said] == [("operator:anna", True)]
    assert SECRET not in str([item.entry for item in kit.ledger.entries(limit=1000)])


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_nobody_withholds_without_a_reason(kit: StationKit, reason: str) -> None:
    with pytest.raises(UsageError, match="reason"):
        kit.reviewing.withhold(1, "anna", reason)
    assert waiting(kit) == [1]


# -- two people


@pytest.mark.parametrize("again", ["anna", "Anna", "ANNA"])
def test_the_same_person_twice_counts_once(two: StationKit, envelope_of_two: bytes, again: str) -> None:
    assert two.reviewing.release(1, "anna").state is ReviewState.WAITING
    with pytest.raises(UsageError, match="released it already"):
        two.reviewing.release(1, again)
    two.again()
    with pytest.raises(UsageError, match="released it already"):
        two.reviewing.release(1, again)
    assert asked(two, envelope_of_two) == PENDING
    assert left(two) == []
    assert two.reviewing.release(1, "bert").state is ReviewState.RELEASED
    assert review(two).released_by == ("anna", "bert")
    assert asked(two, envelope_of_two)[0] == "released"


@pytest.mark.parametrize("name", ["", "___", "\x1b\n"])
def test_nobody_without_a_name_counts(two: StationKit, name: str) -> None:
    with pytest.raises(UsageError, match="has a name"):
        two.reviewing.release(1, name)
    assert review(two).words == ()


def test_one_no_is_enough_also_after_a_yes(two: StationKit, envelope_of_two: bytes) -> None:
    two.reviewing.release(1, "anna")
    two.reviewing.withhold(1, "anna", "on second thought")
    nothing_left(two)
    assert asked(two, envelope_of_two) == ("withheld", "REVIEW_WITHHELD")


def test_a_hospital_that_asks_for_two_meanwhile_gets_two(kit: StationKit) -> None:
    _asks(kit, people=2)
    assert kit.reviewing.release(1, "anna").state is ReviewState.WAITING
    assert left(kit) == []


# -- what changes while it waits


def test_a_patient_who_withdrew_while_it_waited_is_in_nothing_that_leaves(
    kit: StationKit, envelope: bytes
) -> None:
    before = kit.reviewing.queue.document(1).used
    assert before is not None
    withdraws(kit)
    with pytest.raises(RefusedError) as refused:
        kit.reviewing.release(1, "anna")
    assert refused.value.code == "CONSENT_WITHDRAWN"
    nothing_left(kit)
    # Told once, as of a message under way; then it is computed anew without the patient, and waits again.
    assert asked(kit, envelope) == ("failed", "CONSENT_WITHDRAWN")
    assert asked(kit, envelope) == PENDING
    used = kit.reviewing.queue.document(2).used
    assert used is not None
    assert patient(in_training()) not in used.patients
    assert len(used.patients) == len(before.patients) - 1
    kit.reviewing.release(2, "anna")
    reply, _ = kit.message(envelope)
    assert (reply.status, left(kit)) == (Status.RELEASED, [(digest(envelope), 1)])


def test_a_withdrawal_wipes_what_waits_when_nobody_asks(kit: StationKit) -> None:
    withdraws(kit, in_training())
    kit.catalogue.sync()
    assert kit.reviewing.look() == 1
    assert review(kit).code is RefusalCode.CONSENT_WITHDRAWN
    nothing_left(kit)


def test_a_patient_who_withdrew_and_came_back_brings_nothing_back(kit: StationKit) -> None:
    withdraws(kit, in_training())
    kit.catalogue.sync()
    kit.reviewing.look()
    kit.intake.consent(p0="consent")
    with pytest.raises(UsageError, match="CONSENT_WITHDRAWN"):
        kit.reviewing.release(1, "anna")
    nothing_left(kit)


def _policy(kit: StationKit, _: bytes) -> None:
    kit.board.repository.revoke("cxr-classification", 1, "a fault was found", now=kit.clock())
    later(kit, seconds=1)


def _requester(kit: StationKit, _: bytes) -> None:
    key = kit.board.keys["requester"].public_hex
    kit.board.repository.revoke_requester(key, "the key was stolen", now=kit.clock())
    later(kit, seconds=1)


def _stop(kit: StationKit, envelope: bytes) -> None:
    kit.decide(envelope, "stop")


def _finish(kit: StationKit, envelope: bytes) -> None:
    assert asked(kit, envelope, Kind.FINISH)[0] == "finished"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_policy, "POLICY_REVOKED"),
        (_requester, "REQUESTER_REVOKED"),
        (_stop, "RUN_STOPPED"),
        (_finish, "ORDER_SPENT"),
    ],
)
@pytest.mark.parametrize("by_itself", [True, False], ids=["nobody asks", "a person asks"])
def test_what_is_over_never_leaves(
    kit: StationKit, envelope: bytes, change: Callable[[StationKit, bytes], None], code: str, by_itself: bool
) -> None:
    change(kit, envelope)
    if by_itself:
        kit.gatekeeper.policy_set(fresh=False)
        assert kit.reviewing.look() == 1
    else:
        with pytest.raises(RefusedError) as refused:
            kit.reviewing.release(1, "anna")
        assert refused.value.code == code
    assert (review(kit).state, review(kit).code) == (ReviewState.LAPSED, RefusalCode(code))
    nothing_left(kit)
    assert asked(kit, envelope)[0] == "refused"


def test_an_order_that_expired_while_it_waited_never_leaves(tmp_path: Path) -> None:
    kit = reviewed(tmp_path, policy=REVIEWED | {"release.review_hours": 72})
    parked(kit)
    later(kit, hours=25)
    assert kit.reviewing.look() == 1
    assert review(kit).code is RefusalCode.ORDER_EXPIRED
    nothing_left(kit)
    kit.close()


def test_what_passes_only_makes_it_wait(kit: StationKit, envelope: bytes) -> None:
    kit.decide(envelope, "hold")
    with pytest.raises(RefusedError) as held:
        kit.reviewing.release(1, "anna")
    assert held.value.code == "HOSPITAL_HELD"
    kit.decide(envelope, "approve")
    # Nobody vouches for the board's repository any more.
    kit.clock.forward(hours=1, minutes=50)
    kit.board.repository.folder.rename(kit.folder / "away")
    with pytest.raises(RefusedError):
        kit.reviewing.release(1, "anna")
    assert kit.reviewing.look() == 0
    assert (waiting(kit), left(kit)) == ([1], [])
    (kit.folder / "away").rename(kit.board.repository.folder)
    later(kit, seconds=1)
    assert kit.reviewing.release(1, "anna").state is ReviewState.RELEASED


class _Restored:
    """Records that were restored from a backup: first nothing counts, then the orders of before are spent."""

    def __init__(self, reason: Reason | None, spent: Reason | None) -> None:
        self._reason, self._spent = reason, spent

    def reason(self) -> Reason | None:
        return self._reason

    def spent(self, *_: object) -> Reason | None:
        return self._spent

    def note_trust(self, *_: object) -> None:
        """Nothing to note."""


def test_a_restored_station_releases_nothing_of_before(kit: StationKit) -> None:
    kit.gatekeeper._records = _Restored(Reason(RefusalCode.STATION_RESTORED), None)
    with pytest.raises(RefusedError):
        kit.reviewing.release(1, "anna")
    assert kit.reviewing.look() == 0
    assert left(kit) == []
    kit.gatekeeper._records = _Restored(None, Reason(RefusalCode.ORDER_SPENT))
    with pytest.raises(RefusedError) as spent:
        kit.reviewing.release(1, "anna")
    assert spent.value.code == "ORDER_SPENT"
    nothing_left(kit)


def test_the_policys_releases_are_counted_when_they_leave(tmp_path: Path) -> None:
    kit = reviewed(tmp_path, policy=REVIEWED | {"runs.releases": 4, "runs.rounds": 2, "runs.runs": 1})
    envelope = parked(kit)
    for round_ in range(2, 6):
        park_one(kit, envelope, round_)
    for number in range(1, 5):
        kit.reviewing.release(number, "anna")
    with pytest.raises(RefusedError) as refused:
        kit.reviewing.release(5, "anna")
    assert refused.value.code == "BUDGET_RELEASES"
    assert len(left(kit)) == 4
    assert parked_files(kit) == []
    kit.close()


# -- the disk


def test_bytes_that_were_changed_on_the_disk_do_not_leave(kit: StationKit) -> None:
    path = kit.paths.reviews / "1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StateError, match="not what was parked"):
        kit.reviewing.release(1, "anna")
    assert (left(kit), review(kit).words) == ([], ())
    kit.reviewing.withhold(1, "anna", "the disk changed it")
    nothing_left(kit)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE reviews SET document = x'00'",
        "UPDATE reviews SET document_digest = 'sha256:0'",
        "UPDATE reviews SET until = '2099-01-01T00:00:00.000000Z'",
        "UPDATE reviews SET people = 0",
        "DELETE FROM reviews",
        "DELETE FROM review_words",
        "UPDATE review_words SET operator = 'bert'",
        "INSERT INTO review_words VALUES (9, 1, 'anna', 'Anna', 'release', '', '2026-11-22T12:00:00.000000Z')",
    ],
)
def test_the_records_hold_against_the_stations_own_hand(two: StationKit, change: str) -> None:
    two.reviewing.release(1, "anna")
    with pytest.raises(IntegrityError), two.database.write() as session:
        session.execute(text(change))


@pytest.mark.parametrize(
    "change",
    ["UPDATE reviews SET state = 'waiting', ended = NULL, code = NULL", "UPDATE reviews SET code = NULL"],
)
def test_what_ended_does_not_wait_again(kit: StationKit, change: str) -> None:
    kit.reviewing.withhold(1, "anna", "no")
    with pytest.raises(IntegrityError), kit.database.write() as session:
        session.execute(text(change))
