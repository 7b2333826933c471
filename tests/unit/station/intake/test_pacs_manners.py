"""Hours, pace and patience, over all the moments of a year."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.intake.sources.manners import Pace, backoff_s, is_open, opens_at

AMSTERDAM = ZoneInfo("Europe/Amsterdam")
CLOCK = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
HOURS = st.lists(st.tuples(CLOCK, CLOCK).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=3)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(HOURS, MOMENTS)
def test_it_opens_when_it_says_and_not_before(hours: list[tuple[str, str]], now: datetime) -> None:
    start = opens_at(hours, AMSTERDAM, now)
    assert start >= now
    assert start - now <= timedelta(days=2)
    if start > now:
        assert not is_open(hours, AMSTERDAM, now)
        # But for the nights on which the clocks change.
        if start.astimezone(AMSTERDAM).utcoffset() == now.astimezone(AMSTERDAM).utcoffset():
            assert is_open(hours, AMSTERDAM, start)


def test_the_hospitals_own_clock_counts() -> None:
    hours = [("19:00", "06:00")]
    assert is_open(hours, AMSTERDAM, datetime(2026, 7, 1, 17, 0, tzinfo=UTC))
    assert not is_open(hours, AMSTERDAM, datetime(2026, 1, 1, 17, 0, tzinfo=UTC))
    assert is_open([], AMSTERDAM, datetime(2026, 1, 1, tzinfo=UTC))


@given(st.integers(1, 10_000), st.floats(0.01, 100), st.floats(100, 10_000), st.floats(0, 1))
def test_the_pause_grows_and_is_bounded(attempt: int, first: float, longest: float, dice: float) -> None:
    pause = backoff_s(attempt, first, longest, dice)
    assert first / 2 <= pause <= longest
    assert backoff_s(attempt + 1, first, longest, dice) >= pause


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 6000))
def test_the_pace_is_kept_on_average(takes: list[int], per_minute: int) -> None:
    pace, now = Pace(per_minute), 100.0
    for count in takes:
        now += pace.wait_s(now)
        pace.took(count, now)
    now += pace.wait_s(now)
    assert now - 100.0 == pytest.approx(sum(takes) * 60 / per_minute)


def test_idle_time_is_not_saved_up() -> None:
    pace = Pace(60)
    pace.took(1, 0.0)
    assert pace.wait_s(1000.0) == 0.0
    pace.took(10, 1000.0)
    assert pace.wait_s(1000.0) == 10.0
