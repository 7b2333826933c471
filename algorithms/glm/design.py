"""The patients of a cohort as the numbers of a regression: one line each, in columns that the model fixes.

One patient is one line: of several studies the first that the cohort lists, whose order is that of pseudonyms and says nothing.
Whoever lacks a value that the model needs is left out (complete cases), but where a field has a group of its own for that. Training
and validation patients count alike: nothing is tuned that a validation set would have to judge.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from algorithms.glm.errors import Code, GlmError
from algorithms.glm.specification import CategoryField, Family, Model, NumberField

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SPLITS: Final = ("training", "validation")
LEAST_EXAMPLES: Final = 10
"""What a station counts at least for, however few it has."""


@dataclass(frozen=True, slots=True)
class Design:
    """A station's patients as numbers; N complete ones, P columns.

    Attributes:
        columns: the model's. Shape (N, P).
        outcome: of `cox` 1 where the event happened. Shape (N,).
        offset: the logarithm of the exposure; zeros where there is none. Shape (N,).
        time: of `cox`; zeros for others. Shape (N,).
        categories: of each field of categories, and of outcomes that are yes or no, everybody's number. For disclosure.
        numbers: of each other field, everybody's number.
        listed: how many patients there are, complete or not.
        examples: how many the station says that it has, rounded: the weight that averaging gives its answer.
    """

    columns: Matrix
    outcome: Vector
    offset: Vector
    time: Vector
    categories: Mapping[str, NDArray[np.int64]]
    numbers: Mapping[str, Vector]
    listed: int
    examples: int

    @property
    def complete(self) -> int:
        """How many patients the sums are over."""
        return len(self.outcome)


@dataclass(frozen=True, slots=True)
class _Line:
    outcome: float
    exposure: float
    time: float
    covariates: tuple[float | str, ...]


def read_design(folder: Path, model: Model) -> Design:
    """Read a cohort.

    Args:
        folder: of the cohort.
        model: what is wanted of it.

    Raises:
        GlmError: a field is not there, or a value is none that the model foresees.
    """
    try:
        rows = _first_rows(folder)
        counts = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))["counts_rounded"]
        examples = max(LEAST_EXAMPLES, int(counts["training"]["images"]))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise GlmError(Code.DATA_UNEXPECTED, "the cohort's folder is not as stations write it") from error
    for field in model.fields:
        if any(field not in row for row in rows):
            raise GlmError(
                Code.MODEL_INVALID,
                f"the cohort has no field {field}: name it among clinical_fields in train.yaml",
            )
    lines = [line for row in rows if (line := _line(model, row)) is not None]
    return _design(model, lines, len(rows), examples)


def _first_rows(folder: Path) -> list[dict[str, str]]:
    """Return the clinical values of each patient's first case, in the order of the datalist."""
    listed: object = json.loads((folder / "datalist.json").read_text(encoding="utf-8"))
    if not isinstance(listed, dict):
        raise TypeError("datalist.json is no object")
    with (folder / "clinical.csv").open(encoding="utf-8", newline="") as file:
        by_case = {row["case"]: row for row in csv.DictReader(file, strict=True)}
    first: dict[str, str] = {}
    for split in SPLITS:
        for case in listed.get(split, []):
            first.setdefault(str(case["patient"]), str(case["case"]))
    return [{str(key): value or "" for key, value in by_case[case].items()} for case in first.values()]


def _line(model: Model, row: Mapping[str, str]) -> _Line | None:
    """Return a patient's values; None where one that is needed is missing."""
    outcome = model.outcome.read(row[model.outcome.field])
    exposure = 1.0 if model.exposure is None else model.exposure.read(row[model.exposure.field])
    time = _time(model, row, outcome)
    covariates = [each.read(row[each.field]) for each in model.covariates]
    known = [value for value in covariates if value is not None]
    if outcome is None or exposure is None or time is None or len(known) != len(covariates):
        return None
    _require_possible(model.family, outcome, exposure)
    return _Line(outcome, exposure, time, tuple(known))


def _time(model: Model, row: Mapping[str, str], event: float | None) -> float | None:
    if model.time is None:
        return 0.0
    time = model.time.read(row[model.time.field])
    if not row[model.time.field] and event == 0.0:
        return model.time_without_event
    return time


def _require_possible(family: Family, outcome: float, exposure: float) -> None:
    possible = {
        Family.LINEAR: True,
        Family.LOGISTIC: outcome in {0.0, 1.0},
        Family.COX: outcome in {0.0, 1.0},
        Family.POISSON: outcome >= 0 and outcome.is_integer() and exposure > 0,
    }
    if not possible[family]:
        raise GlmError(
            Code.DATA_UNEXPECTED,
            f"an outcome is none of a {family} model: 0 or 1 (logistic, cox), or a count with an exposure above 0 (poisson)",
        )


def _design(model: Model, lines: Sequence[_Line], listed: int, examples: int) -> Design:
    count = len(lines)
    columns: list[Vector] = [np.ones(count)] if model.has_intercept else []
    categories: dict[str, NDArray[np.int64]] = {}
    outcome = np.array([line.outcome for line in lines], np.float64)
    exposure = np.array([line.exposure for line in lines], np.float64)
    time = np.array([line.time for line in lines], np.float64)
    numbers: dict[str, Vector] = {}
    for place, field in enumerate(model.covariates):
        values = [line.covariates[place] for line in lines]
        if isinstance(field, NumberField):
            columns.append(np.array(values, np.float64))
            numbers[field.column] = columns[-1]
        else:
            columns += _indicators(field, values)
            categories[field.field] = np.array([field.levels.index(str(each)) for each in values], np.int64)
    if model.family in {Family.LOGISTIC, Family.COX}:
        categories[model.outcome.field] = outcome.astype(np.int64)
    else:
        numbers[model.outcome.field] = outcome
    if model.exposure is not None:
        numbers[model.exposure.field] = exposure
    matrix = np.stack(columns, axis=1) if count else np.zeros((0, len(model.columns)))
    return Design(matrix, outcome, np.log(exposure), time, categories, numbers, listed, examples)


def _indicators(field: CategoryField, values: Sequence[float | str]) -> list[Vector]:
    return [
        np.array([float(value == level) for value in values], np.float64)
        for level in field.levels
        if level != field.reference
    ]
