from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.pseudonymisation.dates import Shift, shift_date, shift_datetime, shift_time

SHIFTS = st.builds(Shift, days=st.integers(-365, -1), minutes=st.integers(-30, -1))
# Far enough from year 1000 that a shift stays in four digits.
MOMENTS = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001 - local by nature
    datetime(2100, 1, 1),  # noqa: DTZ001
).map(lambda moment: moment.replace(microsecond=0))
BACK = Shift(days=-10, minutes=-30)


def pair(moment: datetime) -> tuple[str, str]:
    return f"{moment:%Y%m%d}", f"{moment:%H%M%S}"


def read(date: str | None, time: str | None) -> datetime:
    return datetime.strptime(f"{date}{time}", "%Y%m%d%H%M%S")  # noqa: DTZ007 - local by nature


@given(MOMENTS, MOMENTS, SHIFTS)
def test_intervals_stay_exact_and_no_value_stays(first: datetime, second: datetime, shift: Shift) -> None:
    moved = []
    for moment in (first, second):
        date, time = pair(moment)
        new_date, new_time = shift_date(date, shift, time), shift_time(time, shift)
        assert (new_date, new_time) != (date, time)
        assert new_date != date
        assert new_time != time
        moved.append(read(new_date, new_time))
    assert moved[1] - moved[0] == second - first
    assert first - moved[0] == timedelta(days=-shift.days, minutes=-shift.minutes)


@given(MOMENTS, SHIFTS)
def test_a_datetime_moves_as_its_date_and_time_do(moment: datetime, shift: Shift) -> None:
    date, time = pair(moment)
    assert shift_datetime(date + time, shift) == f"{shift_date(date, shift, time)}{shift_time(time, shift)}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20200917", "20200907"),
        ("2020.09.17", "20200907"),
        ("20200301", "20200220"),
        ("20210105", "20201226"),
        ("20200230", None),
        ("2020-09-17", None),
        ("20200917-20200918", None),
        ("202009", None),
        ("yesterday", None),
        ("00010101", None),
        ("10000105", None),
        ("", None),
    ],
)
def test_dates(value: str, expected: str | None) -> None:
    assert shift_date(value, BACK) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("122136", "115136"),
        ("122136.123456", "115136.123456"),
        ("1221", "1151"),
        ("12:21:36", "115136"),
        ("001000", "234000"),
        ("12", None),
        ("240000", None),
        ("235960", None),
        ("noon", None),
    ],
)
def test_times(value: str, expected: str | None) -> None:
    assert shift_time(value, BACK) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20200917122136.123+0200", "20200907115136.123+0200"),
        ("20200917001000", "20200906234000"),
        ("202009171221", "202009071151"),
        ("2020091712", "20200907"),
        ("20200917-0500", "20200907-0500"),
        ("202009", None),
        ("2020", None),
        ("20200917122136 Eva", None),
    ],
)
def test_datetimes(value: str, expected: str | None) -> None:
    assert shift_datetime(value, BACK) == expected


def test_a_pair_around_midnight_moves_as_one() -> None:
    assert shift_date("20200917", BACK, "001000") == "20200906"
    assert shift_date("20200917", BACK, "003000") == "20200907"
    assert shift_date("20200917", BACK, "not a time") == "20200907"
