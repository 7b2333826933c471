"""Bands: how much of a value a cohort's `clinical.csv` shows.

Pure. Invariants: values of one band show alike; a band's name says where it begins and ends, never which value is in it;
along the values the bands come in order.
"""

from datetime import date
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import StrictModel


class ExactBand(StrictModel):
    """The value itself: for answers that are few and shared by many, such as yes and no."""

    kind: Literal["exact"] = "exact"


class WithheldBand(StrictModel):
    """Never shown; what is computed from it may be."""

    kind: Literal["withheld"] = "withheld"


class RangeBand(StrictModel):
    """A range of whole numbers, as in ``60-69``: 60 up to, but not, 70.

    Attributes:
        step: how wide.
        bottom: where the lowest range begins; everything below shows as ``under<bottom>``.
        top: from here on everything shows as ``<top>+``.
    """

    kind: Literal["range"] = "range"
    step: Annotated[int, Field(ge=2)]
    bottom: int = 0
    top: int

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top <= self.bottom or (self.top - self.bottom) % self.step:
            raise ValueError("a range band's top must lie whole steps above its bottom")
        return self


class RoundedBand(StrictModel):
    """The nearest multiple of a step, halves up."""

    kind: Literal["rounded"] = "rounded"
    step: Annotated[float, Field(gt=0)]


class PeriodBand(StrictModel):
    """The year, or the quarter as in ``2020-Q3``, in which a shifted date lies."""

    kind: Literal["period"] = "period"
    unit: Literal["year", "quarter"]


Band = Annotated[ExactBand | WithheldBand | RangeBand | RoundedBand | PeriodBand, Field(discriminator="kind")]


def in_range(value: float, band: RangeBand) -> str:
    """Name the range that a number lies in.

    >>> [in_range(value, RangeBand(step=10, top=90)) for value in (-1, 0, 64.9, 89, 90, 104)]
    ['under0', '0-9', '60-69', '80-89', '90+', '90+']
    """
    if value < band.bottom:
        return f"under{band.bottom}"
    if value >= band.top:
        return f"{band.top}+"
    below = int((Decimal(str(value)) - band.bottom) / band.step) * band.step + band.bottom
    return f"{below}-{below + band.step - 1}"


def rounded(value: float, band: RoundedBand) -> int | float:
    """Return the nearest multiple of the step; a whole number where the step is one.

    >>> rounded(38.3, RoundedBand(step=0.5)), rounded(97, RoundedBand(step=2)), rounded(-5, RoundedBand(step=10))
    (38.5, 98, 0)
    """
    step = Decimal(str(band.step))
    # ROUND_HALF_UP goes away from zero: below it, halves up is towards zero.
    steps = (Decimal(str(value)) / step + Decimal("0.5")).to_integral_value(ROUND_FLOOR)
    result = (steps * step).quantize(step, ROUND_HALF_UP)
    return int(result) if band.step == int(band.step) else float(result)


def period(day: date, band: PeriodBand) -> str:
    """Name the year or the quarter of a date.

    >>> period(date(2020, 9, 30), PeriodBand(unit="quarter")), period(date(2020, 9, 30), PeriodBand(unit="year"))
    ('2020-Q3', '2020')
    """
    return f"{day.year:04d}" + (f"-Q{(day.month + 2) // 3}" if band.unit == "quarter" else "")
