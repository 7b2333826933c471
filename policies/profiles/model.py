"""What a minimal-dataset profile says of a field.

A profile is a document: read, versioned and agreed on like a policy. Once published, a version never changes; another set of
fields, codes or bands is another version. Invariants: a value that does not fit its field is never shown; what identifies a
person together with other things is never shown exactly.
"""

import math
import re
from collections.abc import Iterable
from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import Name, Sequence, StrictModel, Text
from policies.profiles.bands import (
    Band,
    ExactBand,
    PeriodBand,
    RangeBand,
    RoundedBand,
    WithheldBand,
    in_range,
    period,
    rounded,
)

ProfileId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}@[0-9]{1,4}$")]
"""Name and version, as in ``thorax-1@1``."""

FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ClinicalValue = bool | int | float | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,32}$")] | None
CodeValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,32}$")]
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class ValueFault(StrEnum):
    """What can be wrong with a value; the words of a validation report."""

    NOT_ITS_TYPE = "not-its-type"
    OUT_OF_RANGE = "out-of-range"
    UNKNOWN_CODE = "unknown-code"


class CodeSource(StrictModel):
    """Where a profile's codes were looked up, so that the next person need not trust our memory."""

    id: Name
    title: Text
    where: Text


class Concept(StrictModel):
    """A concept of a code system, with the display its source gives.

    Attributes:
        source: the id of one of the profile's sources.
    """

    system: Literal["SNOMED CT", "LOINC", "RadLex"]
    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{3,18}$")]
    display: Text
    source: Name


class FieldValue(StrictModel):
    """One answer that a field may have: how it is written, what it means."""

    value: CodeValue
    meaning: Text
    concepts: Sequence[Concept] = ()


class ProfileField(StrictModel):
    """One agreed field.

    Kinds: `integer` and `number` (with `values`, only those), `code` (one of `values`), `flag` (true or false), `date` (shown
    shifted, in its period), `age` (whole years at the study, from a date of birth that stays in intake), `days` (whole days
    between the study and an event, from a number or from the event's date, which stays in intake).

    Attributes:
        column: where it stands in the plain export; of kind `age`, the date of birth.
        maximum: inclusive; of kind `age`, older patients share this value.
        unit: UCUM.
        measured: of kind `days`, which way the days count: `before-study` from the event to the study, `after-study`
            from the study to the event; the other way around they are negative.
        when: to which moment the value belongs.
        identifying: `quasi`: with others of its kind it can single a person out; `none`: it cannot.
        band: how a cohort shows it.
    """

    name: FieldName
    column: FieldName | None = None
    kind: Literal["integer", "number", "code", "flag", "date", "age", "days"]
    description: Text
    when: Literal["at-study", "at-admission", "before-study", "after-study", "lasting"]
    required: bool = False
    unit: Annotated[str, Field(max_length=20)] | None = None
    minimum: float | None = None
    maximum: float | None = None
    values: Sequence[FieldValue] = ()
    measured: Literal["before-study", "after-study"] | None = None
    concepts: Sequence[Concept] = ()
    identifying: Literal["quasi", "none"] = "none"
    band: Band = ExactBand()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_values()
        if (self.kind == "days") != (self.measured is not None):
            raise ValueError("`measured` belongs to a field of kind days, and to no other")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("the minimum is over the maximum")
        fitting: dict[str, tuple[type[StrictModel], ...]] = {
            "date": (PeriodBand, WithheldBand),
            "age": (RangeBand, WithheldBand),
            "days": (RangeBand, RoundedBand, WithheldBand),
            "integer": (ExactBand, RangeBand, RoundedBand, WithheldBand),
            "number": (RangeBand, RoundedBand, WithheldBand),
        }
        if not isinstance(self.band, fitting.get(self.kind, (ExactBand, WithheldBand))):
            raise ValueError(f"a field of kind {self.kind} cannot have a band of kind {self.band.kind}")  # noqa: TRY004 - pydantic takes ValueError
        if self.kind == "integer" and isinstance(self.band, ExactBand) and not self.values:
            raise ValueError("an integer is shown exactly only where its values are listed")
        return self

    def _check_values(self) -> None:
        if self.kind == "code" and not self.values:
            raise ValueError("a field of kind code lists its values")
        if self.values and self.kind not in {"code", "integer"}:
            raise ValueError(f"a field of kind {self.kind} lists no values")
        if len({entry.value for entry in self.values}) != len(self.values):
            raise ValueError("a value stands twice")
        if self.kind == "integer" and not all(
            re.fullmatch(r"-?[0-9]+", entry.value) for entry in self.values
        ):
            raise ValueError("the values of an integer are whole numbers")

    @property
    def codes(self) -> tuple[str, ...]:
        """The values as they are written; empty where any in range will do."""
        return tuple(entry.value for entry in self.values)

    def fault(self, value: ClinicalValue) -> ValueFault | None:
        """Tell what is wrong with a value, or None where it fits; a missing value (None) fits."""
        if value is None:
            return None
        if self.kind == "flag":
            return None if isinstance(value, bool) else ValueFault.NOT_ITS_TYPE
        if self.kind == "code":
            return None if value in self.codes and isinstance(value, str) else ValueFault.UNKNOWN_CODE
        if self.kind == "date":
            return None if _day(value) else ValueFault.NOT_ITS_TYPE
        if isinstance(value, bool | str) or (self.kind != "number" and not isinstance(value, int)):
            return ValueFault.NOT_ITS_TYPE
        if not math.isfinite(value):
            return ValueFault.NOT_ITS_TYPE
        if self.values and str(value) not in self.codes:
            return ValueFault.UNKNOWN_CODE
        below = self.minimum is not None and value < self.minimum
        above = self.maximum is not None and value > self.maximum
        return ValueFault.OUT_OF_RANGE if below or above else None

    def shown(self, value: ClinicalValue) -> ClinicalValue:
        """Return a value in its band; None where it does not fit the field, so that nothing unknown passes."""
        if value is None or self.fault(value) is not None:
            return None
        match self.band:
            case ExactBand():
                return value
            case WithheldBand():
                return None
            case PeriodBand():
                day = _day(value)
                return period(day, self.band) if day else None
            case RangeBand() if isinstance(value, int | float):
                return in_range(value, self.band)
            case RoundedBand() if isinstance(value, int | float):
                return rounded(value, self.band)
        return None


class Profile(StrictModel):
    """A minimal-dataset profile."""

    id: ProfileId
    title: Text
    description: Text
    sources: Sequence[CodeSource] = ()
    fields: Annotated[Sequence[ProfileField], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise ValueError("fields: a name stands twice")
        known = {source.id for source in self.sources}
        used = {concept.source for field in self.fields for concept in _concepts(field)}
        if used - known:
            raise ValueError(f"sources: {', '.join(sorted(used - known))} is not there")
        return self

    @cached_property
    def _by_name(self) -> dict[str, ProfileField]:
        return {field.name: field for field in self.fields}

    def field(self, name: str) -> ProfileField:
        """Return a field.

        Raises:
            KeyError: the profile has no such field.
        """
        return self._by_name[name]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a plain export under this profile has."""
        return (
            "patient_id",
            "accession",
            *dict.fromkeys(field.column or field.name for field in self.fields),
        )

    def band(self, field: str, value: ClinicalValue) -> ClinicalValue:
        """Return a value as a cohort shows it: in the band that the profile gives its field.

        A value that does not fit its field is not shown (None).

        Raises:
            KeyError: the profile has no such field.
        """
        return self.field(field).shown(value)

    def quasi_identifiers(self, fields: Iterable[str] | None = None) -> tuple[str, ...]:
        """Return which fields (of those named; of all without) can single a person out together.

        Raises:
            KeyError: the profile has no such field.
        """
        named = [self.field(name) for name in fields] if fields is not None else self.fields
        return tuple(dict.fromkeys(field.name for field in named if field.identifying == "quasi"))


def _concepts(field: ProfileField) -> tuple[Concept, ...]:
    return (*field.concepts, *(concept for value in field.values for concept in value.concepts))


def _day(value: ClinicalValue) -> date | None:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
