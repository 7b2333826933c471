"""Attack and accident: the patients' last budget is spent on an answer that then waits, is withheld, or is lost on its way.

What stands was paid for: it is answered, whatever is left. What the train is to be asked costs again, and is refused.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from privacy_kit import noisy
from review_kit import PENDING, REVIEWED, asked, digest, reviewed
from station_kit import StationKit

from policies.wire.instructions import Kind, Status
from station.egress.review.reviews import ReviewState

SPENT = ("refused", "BUDGET_PRIVACY")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[StationKit]:
    """A hospital that looks at each release, and patients who have left what one run of one round costs."""
    made = reviewed(tmp_path, policy={**noisy(3), **REVIEWED, "runs.rounds": 1})
    yield made
    made.close()


@pytest.fixture
def last(kit: StationKit) -> bytes:
    """An order whose last answer waits, with nothing left of anybody's budget."""
    envelope = kit.ready(rounds=1)
    assert asked(kit, envelope) == PENDING
    kit.reviewing.release(1, "anna")
    assert asked(kit, envelope)[0] == "released"
    assert asked(kit, envelope, Kind.EVALUATE) == PENDING
    return envelope


def test_the_last_answer_that_can_be_paid_for_waits_leaves_and_is_sent_again(
    kit: StationKit, last: bytes
) -> None:
    for _ in range(2):
        assert asked(kit, last, Kind.EVALUATE) == PENDING
    assert kit.prepare(last).status is Status.ACCEPTED
    assert kit.reviewing.release(2, "anna").state is ReviewState.RELEASED
    sent = kit.message(last, Kind.EVALUATE)
    assert sent[0].status is Status.RELEASED
    assert kit.message(last, Kind.EVALUATE, attempt=2) == sent
    assert kit.state(last) != "refused"


def test_a_new_life_of_the_station_waits_on_though_nothing_is_left(kit: StationKit, last: bytes) -> None:
    kit.again()
    assert kit.prepare(last).status is Status.ACCEPTED
    assert asked(kit, last, Kind.EVALUATE) == PENDING


def test_what_was_withheld_is_said_to_be_withheld_and_not_too_dear(kit: StationKit, last: bytes) -> None:
    kit.reviewing.withhold(2, "anna", "no")
    assert asked(kit, last, Kind.EVALUATE) == ("withheld", "REVIEW_WITHHELD")
    # Nothing is left to be computed, so nothing has to be left.
    assert kit.releases.answers_of(digest(last)) == 2
    assert kit.prepare(last).status is Status.ACCEPTED


def two_of_which_one_ends(kit: StationKit) -> bytes:
    """Two orders of two rounds, admitted while everything was left of eight: one of them comes to its second training, no further."""
    first, second = kit.ready(rounds=2), kit.ready(rounds=2)
    for envelope, kind, round_ in (
        (first, Kind.TRAIN, 1), (first, Kind.EVALUATE, 1), (second, Kind.TRAIN, 1), (second, Kind.EVALUATE, 1),
    ):  # fmt: skip
        assert answered(kit, envelope, kind, round_) == "released"
    return first


def answered(kit: StationKit, envelope: bytes, kind: Kind, round_: int) -> str:
    status, _ = asked(kit, envelope, kind, round_)
    if status == "pending":
        kit.reviewing.release(len(kit.reviewing.queue.list()), "anna")
        status, _ = asked(kit, envelope, kind, round_)
    return status


def test_a_recorded_release_is_sent_again_when_the_next_one_cannot_be_paid_for(tmp_path: Path) -> None:
    kit = StationKit.make(tmp_path, policy=noisy(8))
    first = two_of_which_one_ends(kit)
    lost = kit.message(first, Kind.TRAIN, 2)
    assert lost[0].status is Status.RELEASED
    assert kit.message(first, Kind.TRAIN, 2, attempt=2) == lost
    assert asked(kit, first, Kind.EVALUATE, 2) == SPENT
    # Refused it was; what is recorded stands all the same.
    assert kit.message(first, Kind.TRAIN, 2, attempt=3) == lost
    kit.close()


def test_what_waits_is_not_refused_when_the_next_one_cannot_be_paid_for(tmp_path: Path) -> None:
    kit = reviewed(tmp_path, policy={**noisy(8), **REVIEWED})
    first = two_of_which_one_ends(kit)
    assert asked(kit, first, Kind.TRAIN, 2) == PENDING
    assert asked(kit, first, Kind.TRAIN, 2) == PENDING
    # Nor is its order, where it is prepared again: nothing is computed until a message needs it.
    kit.again()
    assert kit.prepare(first).status is Status.ACCEPTED
    kit.reviewing.release(5, "anna")
    assert asked(kit, first, Kind.TRAIN, 2)[0] == "released"
    assert asked(kit, first, Kind.EVALUATE, 2) == SPENT
    kit.close()
