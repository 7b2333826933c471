"""Token buckets: what a flood gets, whom it cannot keep out, and how much of it is remembered."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.registry.limiting import Buckets, Gate, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _gate(clock: Clock, **rates: Rate) -> Gate:
    plenty = Rate(1000.0, 1000.0)
    return Gate(
        rates.get("address", plenty),
        rates.get("principal", plenty),
        rates.get("failures", plenty),
        max_keys=100,
        clock=clock,
    )


def no_station() -> bool:
    return False


def a_station() -> bool:
    return True


def test_so_many_at_once_and_so_many_a_second() -> None:
    clock = Clock()
    buckets = Buckets(Rate(2.0, 3.0), clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b") == 0.0
    clock.now += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0.0
    clock.now += 3600.0
    assert [buckets.take("a") > 0.0 for _ in range(4)] == [False, False, False, True]


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.booleans()), max_size=60))
def test_nobody_gets_more_than_the_rate(steps: list[tuple[float, bool]]) -> None:
    clock, taken = Clock(), 0
    buckets = Buckets(Rate(2.0, 5.0), clock=clock)
    for pause, back in steps:
        clock.now += pause
        if back:
            buckets.give_back("a")
            taken -= 1
        taken += buckets.take("a") == 0.0
    # What was given back without having been taken adds nothing beyond a full bucket.
    assert taken <= 5.0 + 2.0 * (clock.now - 100.0)


def test_a_clock_that_goes_back_opens_nothing() -> None:
    clock = Clock()
    buckets = Buckets(Rate(1.0, 1.0), clock=clock)
    assert buckets.take("a") == 0.0
    clock.now -= 50.0
    assert buckets.take("a") > 0.0


def test_what_is_remembered_is_bounded() -> None:
    gate = _gate(Clock())
    for number in range(5000):
        gate.arrived(f"address {number}")
        gate.refused(f"address {number}")
        gate.proven("here", f"credential {number}", f"researcher:{number}")
    assert gate.remembered() <= 400


def test_of_many_the_one_unused_for_longest_is_forgotten() -> None:
    clock = Clock()
    buckets = Buckets(Rate(0.001, 1.0), max_keys=3, clock=clock)
    for key in ("a", "b", "c"):
        buckets.take(key)
    buckets.give_back("a")
    buckets.take("a")
    buckets.take("d")
    assert buckets.take("a") > 0.0
    assert buckets.take("b") == 0.0


def test_guesses_are_refused_before_they_are_looked_at() -> None:
    clock = Clock()
    gate = _gate(clock, failures=Rate(1.0, 3.0))
    for _ in range(3):
        assert gate.before_proof("there", "a guess", 0.0, no_station) == 0.0
        assert gate.refused("there") == 0.0
    assert gate.before_proof("there", "another guess", 0.0, no_station) == pytest.approx(1.0)
    assert gate.before_proof("elsewhere", "a guess", 0.0, no_station) == 0.0
    clock.now += 1.0
    assert gate.before_proof("there", "another guess", 0.0, no_station) == 0.0


@pytest.mark.parametrize("is_station", [no_station, a_station])
def test_a_flood_from_an_address_keeps_out_nobody_who_is_known(is_station: Callable[[], bool]) -> None:
    clock = Clock()
    gate = _gate(clock, address=Rate(1.0, 2.0), failures=Rate(1.0, 2.0))
    known = "a token that held before"
    gate.arrived("hospital")
    gate.proven("hospital", known, "researcher:alice")
    for _ in range(50):
        gate.arrived("hospital")
        gate.refused("hospital")
    over_s = gate.arrived("hospital")
    assert over_s > 0.0
    assert gate.before_proof("hospital", known, over_s, no_station) == 0.0
    unknown = gate.before_proof("hospital", "never seen", over_s, is_station)
    assert (unknown == 0.0) is (is_station is a_station)


def test_a_hundred_stations_behind_one_address_poll_as_they_like() -> None:
    clock = Clock()
    gate = _gate(clock, address=Rate(50.0, 2000.0), principal=Rate(100.0, 1000.0), failures=Rate(1.0, 60.0))
    for _ in range(600):
        for station in range(100):
            key = f"key {station}"
            over_s = gate.arrived("one proxy")
            assert gate.before_proof("one proxy", key, over_s, a_station) == 0.0
            assert gate.proven("one proxy", key, f"station:{station}") == 0.0
        clock.now += 0.1


def test_one_party_is_bounded_wherever_it_comes_from() -> None:
    gate = _gate(Clock(), principal=Rate(1.0, 5.0))
    waits = [gate.proven(f"address {number}", f"token {number}", "researcher:alice") for number in range(6)]
    assert [wait > 0.0 for wait in waits] == [False] * 5 + [True]
    assert gate.proven("address 1", "her own", "researcher:bob") == 0.0
