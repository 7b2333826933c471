"""Any order of events: what leaves is always exactly what was parked, and enough people released it in time.

Random sequences of parking, asking, words of people, looks of the station, time, kills and withdrawals, against a model of a page.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from catalogue_log import patient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from review_kit import (
    HOURS,
    Standstill,
    asked,
    in_training,
    later,
    left,
    park_one,
    parked_files,
    standing_still,
    withdraws,
)
from station_kit import StationKit, order_digest

from policies.errors import RefusedError, UsageError
from policies.wire.instructions import decode_reply

PEOPLE = 2
ROUNDS = st.integers(1, 2)
NAMES = st.sampled_from(["anna", "Anna", "bert", "carl"])
EVENTS = st.one_of(
    st.tuples(st.just("park"), ROUNDS),
    st.tuples(st.just("ask"), ROUNDS),
    st.tuples(st.just("release"), ROUNDS, NAMES),
    st.tuples(st.just("release"), ROUNDS, NAMES),
    st.tuples(st.just("withhold"), ROUNDS, NAMES),
    st.tuples(st.just("time"), st.sampled_from([20, 50, 100])),
    st.tuples(st.just("look")),
    st.tuples(st.just("kill")),
    st.tuples(st.just("withdraw"), st.booleans()),
)


@dataclass
class Parked:
    """What the model knows of one review."""

    number: int
    answer: int
    until: datetime
    with_the_patient: bool
    state: str = "waiting"
    told: bool = False
    people: set[str] = field(default_factory=set)


@dataclass
class Model:
    """What should be, by the rules and nothing else."""

    now: datetime
    reviews: dict[int, Parked] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)
    withdrawn: bool = False
    answers: int = 0

    def look(self) -> None:
        for one in self.reviews.values():
            if one.state == "waiting" and self.now >= one.until:
                one.state = "withheld"
            elif one.state == "waiting" and self.withdrawn and one.with_the_patient:
                one.state = "lapsed"

    def release(self, round_: int, name: str) -> bool:
        """Whether the word is taken."""
        one = self.reviews[round_]
        if one.state != "waiting":
            return False
        if self.now >= one.until:
            one.state = "withheld"
            return False
        if name.lower() in one.people:
            return False
        if len(one.people) + 1 < PEOPLE:
            one.people.add(name.lower())
            return True
        if self.withdrawn and one.with_the_patient:
            one.state = "lapsed"
            return False
        one.state = "released"
        self.left[round_] = one.answer
        return True


@pytest.fixture(scope="module")
def standstill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standstill, bytes]]:
    """A station with an order that has run, and of which nothing waits yet."""
    with standing_still(tmp_path_factory.mktemp("any-order"), PEOPLE, StationKit.ready) as made:
        yield made


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(events=st.lists(EVENTS, min_size=3, max_size=14))
def test_what_leaves_was_parked_and_released(
    standstill: tuple[Standstill, bytes], events: list[tuple[object, ...]]
) -> None:
    kept, envelope = standstill
    with kept.going_on() as kit:
        model = Model(kit.clock())
        # So that a short sequence comes to something.
        for event in [("park", 1), *events]:
            _happens(kit, envelope, model, event)
            _holds(kit, envelope, model)


def _happens(kit: StationKit, envelope: bytes, model: Model, event: tuple[object, ...]) -> None:
    match event:
        case ("park", int() as round_):
            _park(kit, envelope, model, round_)
        case ("ask", int() as round_):
            _ask(kit, envelope, model, round_)
        case ("release", int() as round_, str() as name) if round_ in model.reviews:
            number = model.reviews[round_].number
            if model.release(round_, name):
                kit.reviewing.release(number, name)
            else:
                with pytest.raises((UsageError, RefusedError)):
                    kit.reviewing.release(number, name)
        case ("withhold", int() as round_, str() as name) if round_ in model.reviews:
            one = model.reviews[round_]
            if one.state == "waiting":
                kit.reviewing.withhold(one.number, name, "no")
                one.state = "withheld"
            else:
                with pytest.raises(UsageError):
                    kit.reviewing.withhold(one.number, name, "no")
        case ("time", int() as minutes):
            later(kit, minutes=minutes)
            model.now = kit.clock()
        case ("look",):
            kit.catalogue.sync()
            kit.reviewing.look()
            model.look()
        case ("kill",):
            kit.again()
        case ("withdraw", bool() as gone):
            model.withdrawn = gone
            if gone:
                withdraws(kit, in_training())
            else:
                kit.intake.consent(p0="consent")


def _park(kit: StationKit, envelope: bytes, model: Model, round_: int) -> None:
    standing = model.reviews.get(round_)
    if round_ in model.left:
        return
    model.answers += 1
    kit.catalogue.sync()
    found = park_one(kit, envelope, round_, answer=model.answers)
    if standing is not None and standing.state != "lapsed":
        # What stands is not replaced by what the train says when it is asked again.
        assert found.number == standing.number
        return
    assert found.until == model.now + timedelta(hours=HOURS)
    used = kit.reviewing.queue.document(found.number).used
    assert used is not None
    model.reviews[round_] = Parked(
        found.number, model.answers, found.until, patient(in_training()) in used.patients
    )
    assert model.reviews[round_].with_the_patient is not model.withdrawn


def _ask(kit: StationKit, envelope: bytes, model: Model, round_: int) -> None:
    one = model.reviews.get(round_)
    if one is None or (one.state == "lapsed" and one.told):
        # It would be computed, which takes a second; `test_egress_review` has that.
        return
    if one.state == "waiting" and model.now >= one.until:
        one.state = "withheld"
    answer = {"waiting": "pending", "withheld": "withheld", "lapsed": "failed", "released": "released"}
    assert asked(kit, envelope, round_=round_)[0] == answer[one.state]
    one.told = True


def _holds(kit: StationKit, envelope: bytes, model: Model) -> None:
    waiting = sorted(one.number for one in model.reviews.values() if one.state == "waiting")
    assert parked_files(kit) == [f"{number}.safetensors" for number in waiting]
    order = order_digest(envelope)
    assert sorted(left(kit), key=str) == sorted(((order, round_) for round_ in model.left), key=str)
    recorded = {stored.round: stored for stored in kit.releases.list()}
    assert set(recorded) == set(model.left)
    for round_, answer in model.left.items():
        assert decode_reply(recorded[round_].reply).metrics["loss"] == answer / 1000
        one = kit.reviewing.queue.get(model.reviews[round_].number)
        assert recorded[round_].arrays_digest == one.arrays_digest
        assert len({name.lower() for name in one.released_by}) >= PEOPLE
