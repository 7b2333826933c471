"""The model of a regression as it stands in the image: `model.json`, fixed before any data are seen.

Columns follow from this document alone, never from what a station's patients happen to have: every station has the same ones, in the
same order, and a category that nobody has here is a column of zeros. Categories are compared with a reference that is named; numbers
are moved and scaled by constants that are written down. Values are those of `clinical.csv`: what the profile's bands show (`60-69`).

    {"family": "logistic",
     "outcome": {"field": "pneumonia", "values": {"0": 0, "1": 1}},
     "covariates": [
       {"field": "age_years", "groups": {"young": ["0-9"], "old": ["90+"]}, "reference": "young"},
       {"field": "sex", "groups": {"F": ["F"], "M": ["M"]}, "reference": "F", "excluded": ["O", "U"]},
       {"field": "temperature_c", "centre": 37, "per": 1}]}
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from algorithms.glm.errors import Code, GlmError

INTERCEPT: Final = "intercept"
MAX_COLUMNS: Final = 64
MAX_BYTES: Final = 256 * 1024
MOST_STANDARDISED: Final = 1e6
"""A column's numbers, centred and scaled, lie within a few tens; far beyond, sums of their squares lose what others add."""


class Family(StrEnum):
    """What the outcome is, and so how it depends on the columns: always by the canonical link."""

    LOGISTIC = "logistic"
    LINEAR = "linear"
    POISSON = "poisson"
    COX = "cox"


@dataclass(frozen=True, slots=True)
class NumberField:
    """A field that is read as a number.

    Attributes:
        field: of `clinical.csv`.
        values: what each text stands for; None where the text is the number.
        excluded: texts whose patients are left out, as if the field were empty.
        centre: taken off the number.
        per: what the rest is divided by.
    """

    field: str
    values: Mapping[str, float] | None = None
    excluded: frozenset[str] = frozenset()
    centre: float = 0.0
    per: float = 1.0

    def read(self, text: str) -> float | None:
        """Return the number, or None where the patient has none.

        Raises:
            GlmError: the text is none that the model foresees.
        """
        if not text or text in self.excluded:
            return None
        try:
            number = float(text) if self.values is None else self.values[text]
        except (ValueError, KeyError) as error:
            raise _unexpected(self.field) from error
        if not math.isfinite(number):
            raise _unexpected(self.field)
        standardised = (number - self.centre) / self.per
        if abs(standardised) > MOST_STANDARDISED:
            raise GlmError(
                Code.OUT_OF_RANGE,
                f"{self.field} is too large for its column: choose centre and per in model.json so that it lies around -10 to 10",
            )
        return standardised

    @property
    def column(self) -> str:
        """The column's name: what a coefficient is per, and where the intercept stands.

        >>> NumberField("crp_mg_l", centre=20.0, per=50.0).column, NumberField("weeks").column
        ('crp_mg_l per 50 from 20', 'weeks')
        """
        per = "" if self.per == 1 else f" per {self.per:g}"
        return self.field + per + ("" if self.centre == 0 else f" from {self.centre:g}")


@dataclass(frozen=True, slots=True)
class CategoryField:
    """A field of categories: a column for each group but the reference.

    Attributes:
        field: of `clinical.csv`.
        groups: by name, the texts that belong to it; in order.
        reference: the group that has no column.
        excluded: texts whose patients are left out.
        missing: the name of a group of those whose field is empty; None where they are left out.
    """

    field: str
    groups: Mapping[str, tuple[str, ...]]
    reference: str
    excluded: frozenset[str] = frozenset()
    missing: str | None = None

    def read(self, text: str) -> str | None:
        """Return the group, or None where the patient has none.

        Raises:
            GlmError: the text is none that the model foresees.
        """
        if not text:
            return self.missing
        if text in self.excluded:
            return None
        for name, texts in self.groups.items():
            if text in texts:
                return name
        raise _unexpected(self.field)

    @property
    def levels(self) -> tuple[str, ...]:
        """All groups, the reference and that of the missing too."""
        return (*self.groups, *([self.missing] if self.missing is not None else []))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(f"{self.field}: {name}" for name in self.levels if name != self.reference)


@dataclass(frozen=True, slots=True)
class Model:
    """A regression.

    Attributes:
        outcome: of `cox` the event, 1 where it happened.
        exposure: of `poisson`, what the counts are per; None where all count alike.
        time: of `cox`, when the event happened or the patient was last seen.
        time_without_event: of `cox`, when who had no event and no time was last seen.
    """

    family: Family
    outcome: NumberField
    covariates: tuple[NumberField | CategoryField, ...]
    exposure: NumberField | None = None
    time: NumberField | None = None
    time_without_event: float | None = None

    @property
    def has_intercept(self) -> bool:
        """Whether the first column is one of ones: a Cox model's is in its baseline hazard."""
        return self.family is not Family.COX

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the coefficients, in order."""
        names = [INTERCEPT] if self.has_intercept else []
        for each in self.covariates:
            names += [each.column] if isinstance(each, NumberField) else each.columns
        return tuple(names)

    @property
    def fields(self) -> tuple[str, ...]:
        """The clinical fields that are read."""
        every = (self.outcome, self.exposure, self.time, *self.covariates)
        return tuple(dict.fromkeys(each.field for each in every if each is not None))


def read_model(path: Path) -> Model:
    """Read and check a model.

    Raises:
        GlmError: it is none; the text says where.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise _invalid("the file is too large")
        return model_of(json.loads(data))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, GlmError):
            raise
        raise _invalid(f"{path.name} cannot be read as JSON") from error


def model_of(document: object) -> Model:
    """Return the model that a document describes.

    Raises:
        GlmError: it describes none; the text says where.
    """
    keys = {"outcome", "exposure", "time", "time_without_event", "family", "covariates"}
    found = _object(document, "the model", keys)
    try:
        family = Family(str(found.get("family")))
    except ValueError as error:
        raise _invalid(f"family is one of {', '.join(Family)}") from error
    covariates = found.get("covariates")
    if not isinstance(covariates, list):
        raise _invalid("covariates is a list")
    without_event = found.get("time_without_event")
    model = Model(
        family,
        _number_field(found.get("outcome"), "outcome"),
        tuple(_covariate(each, f"covariates[{place}]") for place, each in enumerate(covariates)),
        _number_field(found["exposure"], "exposure") if "exposure" in found else None,
        _number_field(found["time"], "time") if "time" in found else None,
        None if without_event is None else _number(without_event, "time_without_event"),
    )
    for problem in _problems(model):
        raise _invalid(problem)
    return model


def _problems(model: Model) -> Iterator[str]:
    columns, is_cox = model.columns, model.family is Family.COX
    if not columns:
        yield "there is nothing to estimate"
    if len(columns) > MAX_COLUMNS:
        yield f"more than {MAX_COLUMNS} columns"
    if len(set(columns)) != len(columns):
        yield "a column stands twice"
    if (model.time is not None) != is_cox:
        yield "time belongs to a cox model, and to no other"
    if model.time_without_event is not None and not is_cox:
        yield "time_without_event belongs to a cox model"
    if model.exposure is not None and model.family is not Family.POISSON:
        yield "exposure belongs to a poisson model"
    if model.family is not Family.LINEAR and (model.outcome.centre, model.outcome.per) != (0.0, 1.0):
        yield "only the outcome of a linear model has centre and per"
    # Small cells are looked at field by field (`algorithms.glm.disclosure`).
    covariates = [each.field for each in model.covariates]
    if len(set(covariates)) != len(covariates):
        yield "a field is a covariate once: put what is asked of it into one grouping"
    outcomes = (model.outcome.field, *(each.field for each in (model.time, model.exposure) if each))
    if any(field in outcomes for field in covariates):
        yield "an outcome is no covariate"


def _covariate(value: object, where: str) -> NumberField | CategoryField:
    if not isinstance(value, dict) or "groups" not in value:
        return _number_field(value, where)
    found = _object(value, where, {"field", "groups", "reference", "excluded", "missing"})
    given = found["groups"]
    if not isinstance(given, dict) or not all(_is_text(name) for name in given):
        raise _invalid(f"{where}.groups names groups")
    groups = {str(name): tuple(_texts(texts, f"{where}.groups")) for name, texts in given.items()}
    excluded = frozenset(_texts(found.get("excluded", []), f"{where}.excluded"))
    missing = found.get("missing")
    if missing is not None and (not _is_text(missing) or missing in groups):
        raise _invalid(f"{where}.missing names a group of its own")
    every = [text for texts in groups.values() for text in texts] + sorted(excluded)
    if len(set(every)) != len(every):
        raise _invalid(f"{where}: a value stands twice")
    reference = found.get("reference")
    if reference not in groups:
        raise _invalid(f"{where}.reference is one of its groups")
    return CategoryField(_field(found, where), groups, str(reference), excluded, missing)


def _number_field(value: object, where: str) -> NumberField:
    found = _object(value, where, {"field", "values", "excluded", "centre", "per"})
    values = found.get("values")
    if values is not None:
        if not isinstance(values, dict) or not values:
            raise _invalid(f"{where}.values gives texts their numbers")
        values = {str(text): _number(number, f"{where}.values") for text, number in values.items()}
    per = _number(found.get("per", 1), f"{where}.per")
    if per <= 0:
        raise _invalid(f"{where}.per is above 0")
    excluded = frozenset(_texts(found.get("excluded", []), f"{where}.excluded"))
    if values is not None and excluded & values.keys():
        raise _invalid(f"{where}: a value stands twice")
    return NumberField(
        _field(found, where), values, excluded, _number(found.get("centre", 0), f"{where}.centre"), per
    )


def _object(value: object, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{where} is an object")
    if unknown := sorted(str(key) for key in value.keys() - keys):
        raise _invalid(f"{where} has no {unknown[0]}")
    return value


def _field(found: Mapping[str, Any], where: str) -> str:
    field = found.get("field")
    if not isinstance(field, str) or not _is_text(field):
        raise _invalid(f"{where}.field names a clinical field")
    return field


def _texts(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(_is_text(text) for text in value):
        raise _invalid(f"{where} lists texts")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable()


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _invalid(f"{where} is a number")
    return float(value)


def _invalid(text: str) -> GlmError:
    return GlmError(Code.MODEL_INVALID, f"model.json: {text}")


def _unexpected(field: str) -> GlmError:
    return GlmError(
        Code.DATA_UNEXPECTED,
        f"{field} has a value that model.json does not foresee: put it into a group, or among the excluded",
    )
