"""When answers leave: multiples of a quantum, by a clock that the test moves."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from canary_kit import Remembers, make_kit
from hypothesis import given
from hypothesis import strategies as st
from moments_kit import SkippingClock
from privacy_kit import noisy
from station_kit import (
    Answered,
    StationKit,
    Train,
    TrainEndsError,
    honest,
    in_the_middle,
    order_digest,
    prepare,
)

from policies.errors import UnavailableError
from policies.refusals import Reason, RefusalCode
from policies.wire.instructions import Kind, Status
from station.runs.moments import Moments
from station.sandbox.spec import ExitClass, TrainFailure, TrainRequest

QUANTUM = 3600.0
SLOW: dict[str, object] = {"release.timing_quantum_s": QUANTUM, "resources.run_hours": 100.0}


@dataclass
class Time:
    """A clock whose waits pass at once."""

    now: float = 100.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


@given(st.floats(0, 1e4), st.floats(0.01, 3))
def test_an_answer_leaves_at_a_multiple_and_after_it_was_there(taken: float, quantum: float) -> None:
    time = Time(taken)
    quanta = Moments(time, time.wait).hold(0.0, quantum)
    assert quanta is not None
    assert quanta >= 1
    assert time.now >= taken
    assert time.now == pytest.approx(quanta * quantum)
    assert time.now - taken <= quantum * (1 + 1e-9) + 1e-9


def test_all_within_one_quantum_leave_at_the_same_moment() -> None:
    ends = set()
    for taken in (0.0, 0.001, 3.7, 9.999):
        time = Time()
        time.now += taken
        assert Moments(time, time.wait).hold(100.0, 10.0) == 1
        ends.add(round(time.now, 6))
    assert ends == {110.0}


def test_without_a_quantum_nothing_waits() -> None:
    time = Time()
    assert Moments(time, time.wait).hold(100.0, 0.0, lambda: True) == 0
    assert time.waits == []


def test_the_wait_ends_for_what_comes_from_outside_and_with_the_station() -> None:
    assert Moments().hold(0.0, 3600.0, lambda: True) is None
    moments = Moments()
    threading.Timer(0.01, moments.stop).start()
    with pytest.raises(UnavailableError):
        moments.hold(moments.now(), 3600.0)


def skipping(made: StationKit) -> StationKit:
    """The station with a clock whose waits pass at once."""
    clock = SkippingClock()
    made.moments = Moments(clock, clock.wait)
    made.database.close()
    made.open()
    return made


@pytest.fixture
def held(tmp_path: Path) -> Iterator[StationKit]:
    """A station under a quantum of an hour, which passes at once."""
    made = skipping(StationKit.make(tmp_path, SLOW))
    yield made
    made.close()


@pytest.fixture
def noised(tmp_path: Path) -> Iterator[StationKit]:
    """The same with noise, which is charged for before it is drawn."""
    made = skipping(StationKit.make(tmp_path, {**noisy(60), **SLOW}))
    yield made
    made.close()


def heads(kit: StationKit) -> tuple[int, int]:
    return kit.ledger.head().seq, kit.audit.head().seq


def at_moments(kit: StationKit) -> list[tuple[int, int]]:
    """Note the heads as each wait ends."""
    found: list[tuple[int, int]] = []
    hold = kit.moments.hold

    def before(*args: object) -> int | None:
        quanta = hold(*args)  # type: ignore[arg-type]
        if quanta:
            found.append(heads(kit))
        return quanta

    kit.moments.hold = before  # type: ignore[method-assign,assignment]
    return found


def crashes(request: object, cohort: Path) -> Answered:
    raise TrainEndsError(TrainFailure(ExitClass.CRASH, session_ended=False))


def undeclared(request: object, cohort: Path) -> Answered:
    return {"auc": 0.75, "more": 1.0}, {}, None


@pytest.mark.parametrize(
    ("train", "status"),
    [(honest, Status.RELEASED), (crashes, Status.FAILED), (undeclared, Status.WITHHELD)],
)
def test_whatever_it_answers_it_leaves_at_a_multiple(held: StationKit, train: Train, status: Status) -> None:
    envelope = held.ready()
    recorded: list[tuple[int, int]] = []

    def noted(request: TrainRequest, cohort: Path) -> Answered:
        recorded.append(heads(held))
        return train(request, cohort)

    held.sandbox.train = noted
    moments = at_moments(held)
    began = held.moments.now()
    reply, _ = held.message(envelope, Kind.EVALUATE)
    taken = held.moments.now() - began
    assert reply.status is status
    assert int(taken // QUANTUM) == 1
    assert moments == recorded, "nothing is on record before the moment"
    if status is Status.RELEASED:
        assert reply.compute_s == QUANTUM
        again, _ = held.message(envelope, Kind.EVALUATE, attempt=2)
        assert again == reply
        assert int((held.moments.now() - began) // QUANTUM) == 1, "what is recorded goes at once"


@pytest.mark.parametrize(
    ("train", "status"),
    [(honest, Status.RELEASED), (crashes, Status.FAILED), (undeclared, Status.FAILED)],
)
def test_nothing_is_charged_before_a_moment(noised: StationKit, train: Train, status: Status) -> None:
    """A charge is on record before its answer: who asks for anything else meanwhile is told the heads of the chains."""
    envelope = noised.ready()
    answered: list[tuple[int, int]] = []

    def noted(request: TrainRequest, cohort: Path) -> Answered:
        answered.append(heads(noised))
        return train(request, cohort)

    noised.sandbox.train = noted
    moments = at_moments(noised)
    began = noised.moments.now()
    reply, _ = noised.message(envelope, Kind.EVALUATE)
    assert reply.status is status
    assert moments[0] == answered[0], "nothing is on record before the first moment"
    assert len(moments) == 2
    # However it ended, it ended after as many.
    assert int((noised.moments.now() - began) // QUANTUM) == 2
    if status is Status.RELEASED:
        assert "privacy-charged" in noised.events()
        assert reply.compute_s == 2 * QUANTUM


def test_a_scoring_is_on_record_at_a_moment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = skipping(make_kit(tmp_path, monkeypatch, SLOW))
    envelope = kit.ready()
    train = Remembers()
    answered: list[tuple[int, int]] = []

    def noted(request: TrainRequest, cohort: Path) -> Answered:
        answered.append(heads(kit))
        return train(request, cohort)

    kit.sandbox.train = noted
    moments = at_moments(kit)
    began = kit.moments.now()
    reply, _ = kit.message(envelope, Kind.TRAIN)
    assert reply.status is Status.RELEASED
    assert int((kit.moments.now() - began) // QUANTUM) == 3
    # One request to train and two to score; what each was followed by waits for a moment.
    assert moments == [answered[0], answered[2], moments[2]]
    assert moments[2] > moments[1] > moments[0]
    kit.message(envelope, Kind.EVALUATE)
    assert len(moments) == 4, "what is not scored waits once"
    kit.close()


def test_a_withdrawal_in_the_first_wait_leaves_nothing_to_judge(noised: StationKit) -> None:
    envelope = noised.ready()
    waits = threading.Event()

    def wait(_: float) -> bool:
        waits.set()
        return threading.Event().wait(0.01)

    noised.moments._wait = wait
    with in_the_middle(noised, envelope, Kind.EVALUATE) as (busy, replies):
        busy.go_on.set()
        assert waits.wait(60), "the train has answered, and its answer waits"
        noised.intake.consent(p1="objection")
        noised.catalogue.sync()
        noised.warm.withdraw(noised.gatekeeper.consenting)
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, "CONSENT_WITHDRAWN")]
    assert "privacy-charged" not in noised.events()


def test_a_container_s_hello_counts_like_an_answer(held: StationKit) -> None:
    began = held.moments.now()
    held.ready()
    assert int((held.moments.now() - began) // QUANTUM) == 1


def test_a_withdrawal_in_the_wait_is_answered_as_one_in_the_computation(held: StationKit) -> None:
    envelope = held.ready()
    waits = threading.Event()

    def wait(_: float) -> bool:
        waits.set()
        return threading.Event().wait(0.01)

    held.moments._wait = wait
    with in_the_middle(held, envelope, Kind.EVALUATE) as (busy, replies):
        busy.go_on.set()
        assert waits.wait(60), "the train has answered, and its answer waits"
        assert held.releases.list() == []
        held.intake.consent(p1="objection")
        held.catalogue.sync()
        held.warm.withdraw(held.gatekeeper.consenting)
    assert [(reply.status, reply.code) for reply, _ in replies] == [(Status.FAILED, "CONSENT_WITHDRAWN")]
    assert held.releases.list() == []


def withdraws(kit: StationKit, envelope: bytes) -> None:
    kit.intake.consent(p1="objection")
    kit.catalogue.sync()
    assert kit.warm.withdraw(kit.gatekeeper.consenting) == [order_digest(envelope)]


def revokes(kit: StationKit, envelope: bytes) -> None:
    kit.warm.revoke(lambda _: Reason(RefusalCode.POLICY_REVOKED))


def stops(kit: StationKit, envelope: bytes) -> None:
    kit.decide(envelope, "stop")


def closes(kit: StationKit, envelope: bytes) -> None:
    kit.warm.close()


def station_stops(kit: StationKit, envelope: bytes) -> None:
    kit.moments.stop()
    kit.until(lambda: not kit.sandbox.running)


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (withdraws, "preparing"),
        (revokes, "stopped"),
        (stops, "stopped"),
        (closes, "preparing"),
        (station_stops, "refused"),
    ],
)
def test_what_ends_a_run_ends_its_container_in_the_hello_s_wait(
    held: StationKit, ends: Callable[[StationKit, bytes], None], state: str
) -> None:
    waits, clock = threading.Event(), held.moments._wait

    def wait(_: float) -> bool:
        waits.set()
        return held.moments._stopping.wait(0.01)

    held.moments._wait = wait
    envelope = held.order()
    assert held.service.handle(prepare(envelope), None)[0].status is Status.PENDING
    assert waits.wait(60), "the container has said hello, and waits"
    assert len(held.sandbox.running) == 1
    ends(held, envelope)
    assert held.sandbox.running == []
    held.until(lambda: not held.service._preparing.orders())
    assert held.events().count("container-ended") == 1
    assert list(held.paths.cohorts.iterdir()) == []
    assert held.warm.orders() == frozenset()
    assert held.state(envelope) == state
    if state == "preparing":
        held.moments._wait = clock
        assert held.prepare(envelope).status is Status.ACCEPTED
