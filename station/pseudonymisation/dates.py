"""Shifting DICOM dates and times: pure text in, text out.

PS3.15 E.3.6, Retain Longitudinal Temporal Information with Modified Dates: intervals between the dates of one
patient stay exact, and no original value survives. A value that is not a plain DA, TM or DT (PS3.5 table 6.2-1)
gives None: the caller then does what the Basic Profile says, so nothing unparsed passes.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3]):?([0-5]\d)(?::?([0-5]\d)(\.\d{1,6})?)?")
_DATETIME = re.compile(
    r"(\d{8})(?:([01]\d|2[0-3])(?:([0-5]\d)(?:([0-5]\d)(\.\d{1,6})?)?)?)?([+-](?:0\d|1[0-4])[0-5]\d)?"
)
_MINUTES_PER_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Shift:
    """A patient's shift in time: whole days, and whole minutes so that no time of day stands as it was."""

    days: int
    minutes: int


def shift_date(value: str, shift: Shift, time: str | None = None) -> str | None:
    """Shift a DA; with the time that belongs to it, the pair moves as one moment.

    Args:
        value: the DA, one value.
        shift: the patient's shift.
        time: the TM that stands beside it (Study Date and Study Time), where there is one.
    """
    match = _DATE.fullmatch(value.strip())
    if match is None:
        return None
    carried = _shifted_minutes(time, shift) if time else None
    try:
        moved = date(int(match[1]), int(match[2]), int(match[3])) + timedelta(
            days=shift.days + (carried[0] if carried else 0)
        )
    except (ValueError, OverflowError):
        return None
    return f"{moved:%Y%m%d}" if moved.year >= 1000 else None


def shift_time(value: str, shift: Shift) -> str | None:
    """Shift a TM by the patient's minutes, around midnight where it must; seconds and fractions stay."""
    carried = _shifted_minutes(value, shift)
    if carried is None:
        return None
    _, minutes, rest = carried
    return f"{minutes // 60:02d}{minutes % 60:02d}{rest}"


def shift_datetime(value: str, shift: Shift) -> str | None:
    """Shift a DT with its date and time together; its offset from UTC stays."""
    match = _DATETIME.fullmatch(value.strip())
    if match is None:
        return None
    day, hour, minute, second, fraction, zone = match.groups()
    zone = zone or ""
    try:
        if minute is None:
            # An hour alone would show the original hour more often than not: the day is what is kept.
            moved_day = datetime.strptime(day, "%Y%m%d") + timedelta(days=shift.days)  # noqa: DTZ007 - local by nature
            return f"{moved_day:%Y%m%d}{zone}" if moved_day.year >= 1000 else None
        moment = datetime.strptime(f"{day}{hour}{minute}", "%Y%m%d%H%M")  # noqa: DTZ007 - local by nature
        moment += timedelta(days=shift.days, minutes=shift.minutes)
    except (ValueError, OverflowError):
        return None
    if moment.year < 1000:
        return None
    return f"{moment:%Y%m%d%H%M}{second or ''}{fraction or ''}{zone}"


def _shifted_minutes(value: str, shift: Shift) -> tuple[int, int, str] | None:
    """Return the days carried, the minute of the day, and the seconds as they stood."""
    match = _TIME.fullmatch(value.strip())
    if match is None:
        return None
    hour, minute, second, fraction = match.groups()
    days, minutes = divmod(int(hour) * 60 + int(minute) + shift.minutes, _MINUTES_PER_DAY)
    return days, minutes, f"{second or ''}{fraction or ''}"
