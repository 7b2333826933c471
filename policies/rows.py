"""What is known of one patient in an analysis: one row of a fixed schema, and the bins its station counts patients in.

A train states rows and no count. Columns of the hospital's clinical data, and of how images were acquired, are filled in by the
station itself, and so are columns that combine others. A row outside this schema is no row; whatever else a train says is not read.
Pure; the values are untrusted.
"""

import math
from collections.abc import Mapping
from itertools import pairwise, product
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from policies.documents import Sequence, StrictModel

MAX_COLUMNS: Final = 32
MAX_EDGES: Final = 128
MAX_CATEGORIES: Final = 64
MAX_PATIENTS: Final = 1_000_000
"""The most patients that one message may count: what the board's bound on bits rests on."""

OUTCOME: Final = "outcome"
"""The column that every train of rows has without declaring it: how it ended for a patient."""
ANSWERED: Final = "answered"
FAILURES: Final = ("crash", "timeout", "oom", "protocol", "row")
"""How a patient can be without a row and without a declared code; `row`: what there is lies outside the schema."""
MISSING: Final = "missing"
HIDDEN: Final = -1
"""What stands in a table where a count was too small to leave."""
JOINED: Final = "."
"""Between the categories that a combined column joins."""

ColumnName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Category = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+\-]{0,47}$")]
Edge = Annotated[float, Field(allow_inf_nan=False)]
Cell = int | float | str | None
"""One value of a row that keeps the schema; None where it is missing and may be."""


class RowColumn(StrictModel):
    """One value of a patient's row."""

    name: ColumnName
    type: Literal["int", "float", "category"]
    minimum: Edge | None = None
    maximum: Edge | None = None
    categories: Sequence[Category] = Field(default=(), max_length=MAX_CATEGORIES)
    missing: bool = Field(default=False, description="Whether a patient may be without it (null).")
    source: Literal["train", "clinical", "acquisition", "combined"] = Field(
        default="train",
        description="Who fills it in: the train's program; or the station itself, from the clinical field or the acquisition field of "
        "this name, or by joining the categories of other columns.",
    )
    of: Sequence[ColumnName] = Field(
        default=(),
        max_length=3,
        description="Of a combined column: two or three columns of categories. Its own categories are theirs, joined by a point "
        "(F.positive); a patient who lacks one of them lacks it, or has a combination that is not named.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "RowColumn":
        bounded = self.minimum is not None and self.maximum is not None
        if self.name == OUTCOME:
            raise ValueError(f"{OUTCOME!r} is the station's own column")
        if (self.source == "combined") != bool(self.of):
            raise ValueError("a combined column says of which ('of'), and no other does")
        if self.source == "combined" and (
            self.type != "category" or len(set(self.of)) != len(self.of) or len(self.of) < 2
        ):
            raise ValueError("a combined column is of categories, of two or three other columns")
        if self.type == "category":
            if not self.categories or self.minimum is not None or self.maximum is not None:
                raise ValueError("a category has its categories, and no minimum or maximum")
            if len(set(self.categories)) != len(self.categories) or MISSING in self.categories:
                raise ValueError(f"categories are named once, and none is called {MISSING!r}")
            return self
        if not bounded or self.categories:
            raise ValueError("a number has a minimum and a maximum, and no categories")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self

    def accepts(self, value: object) -> bool:
        """Whether an untrusted value is one of this column's."""
        if value is None:
            return self.missing
        if self.type == "category":
            return type(value) is str and value in self.categories
        # Exactly int or float: a bool is an int to Python, and a subclass could answer anything.
        if type(value) is float:
            if self.type == "int" or not math.isfinite(value):
                return False
        elif type(value) is not int:
            return False
        return self.minimum is not None and self.maximum is not None and self.minimum <= value <= self.maximum


class RowSchema(StrictModel):
    """The row that there is of each patient, and how long a map train may take over one."""

    columns: Sequence[RowColumn] = Field(min_length=1, max_length=MAX_COLUMNS)
    patient_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=120,
        description="A map train's seconds for one patient; `message_timeout_s` holds for all together.",
    )
    complete: bool = Field(
        default=False,
        description="Patients who lack any column stand in no table: one population for all tables. Such a patient has no row, "
        "which counts as `row` in how it ended, and as a patient that a map train failed for.",
    )

    @model_validator(mode="after")
    def _once(self) -> "RowSchema":
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("names a column twice")
        for column in self.columns:
            if problem := self._problem_with_combined(column):
                raise ValueError(f"{column.name} {problem}")
        return self

    def _problem_with_combined(self, column: RowColumn) -> str | None:
        """Return why a column cannot be joined of others, or None; of one that is not joined too."""
        parts = [part for part in map(self.column, column.of) if part is not None]
        if len(parts) != len(column.of) or any(part.type != "category" or part.of for part in parts):
            return "combines columns that are no columns of categories of these rows"
        if not parts:
            return None
        joined = [JOINED.join(names) for names in product(*(part.categories for part in parts))]
        if len(set(joined)) != len(joined):
            return "combines categories that look the same when they are joined: name them otherwise"
        if unknown := [name for name in column.categories if name not in joined]:
            return f"has categories that do not follow from what it combines: {', '.join(unknown)}"
        return None

    def column(self, name: str) -> RowColumn | None:
        """Return a column by name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def of_train(self) -> tuple[RowColumn, ...]:
        """The columns that the train's program fills in."""
        return tuple(column for column in self.columns if column.source == "train")

    @property
    def clinical(self) -> tuple[RowColumn, ...]:
        """The columns that the station fills in from clinical data."""
        return tuple(column for column in self.columns if column.source == "clinical")

    @property
    def acquisition(self) -> tuple[RowColumn, ...]:
        """The columns that the station fills in from how images were acquired."""
        return tuple(column for column in self.columns if column.source == "acquisition")

    @property
    def stated(self) -> frozenset[str]:
        """The columns whose values rest on what the train says: its own, and those that combine one of them."""
        own = {column.name for column in self.of_train}
        return frozenset(own | {column.name for column in self.columns if own & set(column.of)})

    def joined(self, row: Mapping[str, Cell]) -> dict[str, Cell]:
        """Return the combined columns of a row that has all others; None where a part is missing.

        A combination that the column does not name is missing where that may be, else it stays one that the column does not accept.
        """
        found: dict[str, Cell] = {}
        for column in self.columns:
            if not column.of:
                continue
            parts = [row.get(name) for name in column.of]
            text = None if None in parts else JOINED.join(str(part) for part in parts)
            found[column.name] = None if column.missing and text not in column.categories else text
        return found

    def read(self, answer: object) -> dict[str, Cell] | None:
        """Return an untrusted answer as a row, or None where it is none: every column within its bounds, and nothing else.

        The station's own columns are none of a train's to fill in: an answer that names one is no row.

        >>> schema = RowSchema(columns=(RowColumn(name="share", type="float", minimum=0.0, maximum=1.0),))
        >>> schema.read({"share": 0.5}), schema.read({"share": 2.0}), schema.read({"share": 0.5, "name": 1})
        ({'share': 0.5}, None, None)
        """
        columns = self.of_train
        if not isinstance(answer, Mapping) or len(answer) > len(columns):
            return None
        row: dict[str, Cell] = {}
        for column in columns:
            value = answer.get(column.name)
            if not column.accepts(value):
                return None
            row[column.name] = value
        return row if all(key in row for key in answer) else None


def bin_names(column: RowColumn, edges: tuple[float, ...]) -> tuple[str, ...]:
    """Return the bins of a column, in the order of the table's lines.

    >>> bin_names(RowColumn(name="share", type="float", minimum=0.0, maximum=1.0, missing=True), (0.25,))
    ('0 to 0.25', '0.25 to 1', 'missing')
    """
    if column.type == "category":
        names: tuple[str, ...] = column.categories
    else:
        ends = (column.minimum or 0.0, *edges, column.maximum or 0.0)
        names = tuple(f"{low:.12g} to {high:.12g}" for low, high in pairwise(ends))
    return (*names, MISSING) if column.missing else names


def bin_of(column: RowColumn, edges: tuple[float, ...], value: Cell) -> int:
    """Return the index of a value's bin; a value on an edge belongs to the bin above it.

    Args:
        column: whose value it is.
        edges: between its bins, increasing.
        value: accepted by the column.
    """
    if value is None:
        return len(column.categories) if column.type == "category" else len(edges) + 1
    if isinstance(value, str):
        return column.categories.index(value)
    return sum(1 for edge in edges if value >= edge)
