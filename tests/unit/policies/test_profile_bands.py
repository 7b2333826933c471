"""Bands: values of one band show alike, in order, and by nothing that the band does not say."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.profiles import Profile, ProfileField, load_profile, shipped_profiles
from policies.profiles.bands import PeriodBand, RangeBand, RoundedBand, in_range, period, rounded

FIELDS = [
    (profile, field)
    for profile in map(load_profile, shipped_profiles())
    for field in profile.fields
    if field.kind in {"integer", "number", "age", "days"} and not field.values
]
FIELD = st.sampled_from(FIELDS)


def values_of(field: ProfileField) -> st.SearchStrategy[int | float]:
    assert field.minimum is not None
    assert field.maximum is not None
    if field.kind == "number":
        return st.decimals(field.minimum, field.maximum, places=1).map(float)
    return st.integers(int(field.minimum), int(field.maximum))


def order(field: ProfileField, shown: object) -> float:
    """Where a band lies, from its name."""
    if not isinstance(shown, str):
        assert isinstance(shown, int | float)
        return float(shown)
    if shown.startswith("under"):
        return float("-inf")
    first = shown.rstrip("+")
    return float(first if shown.endswith("+") else first[: first.index("-", 1)])


@given(FIELD, st.data())
def test_the_bands_of_a_number_come_in_order(
    chosen: tuple[Profile, ProfileField], data: st.DataObject
) -> None:
    profile, field = chosen
    low, high = sorted((data.draw(values_of(field)), data.draw(values_of(field))))
    assert order(field, profile.band(field.name, low)) <= order(field, profile.band(field.name, high))


@given(FIELD, st.data())
def test_a_band_never_tells_which_value_is_in_it(
    chosen: tuple[Profile, ProfileField], data: st.DataObject
) -> None:
    profile, field = chosen
    value = data.draw(values_of(field))
    shown = profile.band(field.name, value)
    # A step of a number's own resolution to either side: one of them shares the band, so the band is not the value.
    step = 0.1 if field.kind == "number" else 1
    beside = [round(value - step, 1), round(value + step, 1)]
    inside = [other for other in beside if field.minimum <= other <= field.maximum]  # type: ignore[operator]
    alike = [other for other in inside if profile.band(field.name, type(value)(other)) == shown]
    # At the very end of the range a band may be cut short: 90+ of an age that ends at 90 stands for all who are older.
    assert alike or (isinstance(shown, str) and shown.endswith("+") and value == field.maximum)


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.integers(0, 400))
def test_a_date_shows_its_quarter_alone(day: date, later: int) -> None:
    profile = load_profile("ncif-covid-1@1")
    shown = profile.band("admission_date", day.isoformat())
    assert isinstance(shown, str)
    assert shown == f"{day.year:04d}-Q{(day.month - 1) // 3 + 1}"
    after = profile.band("admission_date", (day + timedelta(days=later)).isoformat())
    assert isinstance(after, str)
    assert shown <= after
    assert day.isoformat() not in shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0-9"), (9, "0-9"), (10, "10-19"), (59, "50-59"), (60, "60-69"), (89, "80-89"), (90, "90+")],
)
def test_ages_are_shown_in_bands_of_ten_years(value: int, shown: str) -> None:
    assert load_profile("thorax-1@1").band("age_years", value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-29, "under-28"), (-28, "-28--22"), (-1, "-7--1"), (0, "0-6"), (27, "21-27"), (28, "28+")],
)
def test_days_before_and_after_have_bands_too(value: int, shown: str) -> None:
    assert load_profile("ncif-covid-1@1").band("rt_pcr_days", value) == shown


@pytest.mark.parametrize(
    ("value", "step", "shown"),
    [
        (38.2, 0.5, 38.0),
        (38.25, 0.5, 38.5),
        (-0.25, 0.5, 0.0),
        (4.9, 10, 0),
        (5, 10, 10),
        (0.1 + 0.2, 0.1, 0.3),
    ],
)
def test_numbers_are_rounded_to_their_step(value: float, step: float, shown: float) -> None:
    assert rounded(value, RoundedBand(step=step)) == shown


def test_ranges_of_fractions_end_where_the_next_begins() -> None:
    band = RangeBand(step=5, bottom=15, top=40)
    assert [in_range(value, band) for value in (14.9, 15.0, 19.9, 20.0, 39.99, 40.0)] == [
        "under15", "15-19", "15-19", "20-24", "35-39", "40+",
    ]  # fmt: skip
    assert period(date(2020, 12, 31), PeriodBand(unit="year")) == "2020"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("age_years", "60-69"), ("age_years", 64.5), ("age_years", True), ("age_years", -1), ("sex", "female"),
        ("sex", 1), ("smoker", 1), ("smoker", "yes"), ("temperature_c", 60.0), ("temperature_c", "38.2"),
        ("pneumonia", 2), ("pneumonia", "1"), ("pneumonia", True), ("age_years", None),
    ],
)  # fmt: skip
def test_what_does_not_fit_its_field_is_not_shown(field: str, value: bool | float | str | None) -> None:
    assert load_profile("thorax-1@1").band(field, value) is None


@pytest.mark.parametrize("value", ["2020-02-30", "20200101", "2020-1-1", 20200101, "2020-01-01T00:00"])
def test_a_date_that_is_none_is_not_shown(value: str | int) -> None:
    assert load_profile("ncif-covid-1@1").band("admission_date", value) is None


def test_a_field_that_the_profile_does_not_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        load_profile("thorax-1@1").band("religion", "x")
