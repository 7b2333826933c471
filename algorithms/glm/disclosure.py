"""What a station's sums would tell of few patients, looked at before anything is summed.

The information matrix of a linear model holds the number of patients in every category and every pair of them as it is, and that of
a logistic or Poisson model up to a factor; the score holds how many of each category had the outcome. So these are held to what any
table of counts is held to: each cell empty, or at least the minimum. A column with two or three different numbers is a category
too, for its sums are equations enough; and of a column in which nearly everybody has one number, the few others would be read from its sum:
over all patients, over those of a category, and where it stands in one product with another such column.

That is what DataSHIELD's regressions look at as well (its filters nfilter.tab and nfilter.glm; their defaults are 3 patients a cell
and a parameter for every three patients), and here it includes pairs. It bounds what is read off directly. Whoever holds the sums of
two rounds beside each other has equations enough for the whole table of some categories, every combination of all of them
(`tests/unit/algorithms/test_glm_discloses.py` solves them). Against that the combinations themselves are held to a minimum, where the
policy asks it. Nothing here bounds what numbers that are not categories tell, the times of a Cox model among them, nor what two models tell beside
each other.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from algorithms.glm.design import Design
from algorithms.glm.errors import Code, GlmError

PATIENTS_PER_COLUMN: Final = 3
_SOLVED: Final = 3
"""Of so many different numbers it follows from patients, sum and sum of squares how many have each."""


def require_many(design: Design, minimum: int, minimum_joint: int) -> None:
    """Refuse to sum over few.

    Args:
        design: the station's.
        minimum: the fewest patients of a cell of one or two categories that is not empty.
        minimum_joint: the fewest of a combination of all categories together that is not empty.

    Raises:
        GlmError: there are too few for so many columns, or a cell is too small.
    """
    patients, columns = design.columns.shape
    if patients < max(minimum, PATIENTS_PER_COLUMN * columns):
        raise GlmError(
            Code.TOO_FEW_PATIENTS,
            f"there are fewer than {PATIENTS_PER_COLUMN} complete patients here for each of {columns} columns",
        )
    for what, counts in _tables(design):
        if np.any((counts > 0) & (counts < minimum)):
            raise GlmError(
                Code.CELL_TOO_SMALL,
                f"{what} has a cell of fewer than {minimum} patients here: put groups together in model.json",
            )
    if categories := _categories(design):
        everything = np.stack(list(categories.values()), axis=1)
        _, counts = np.unique(everything, axis=0, return_counts=True)
        if counts.min() < minimum_joint:
            raise GlmError(
                Code.CELL_TOO_SMALL,
                f"fewer than {minimum_joint} patients here share all of their categories: put groups together in model.json",
            )


def _tables(design: Design) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield every table of counts that the sums hold, and of columns of numbers how many stand apart."""
    categories = _categories(design)
    # Whoever knows what nearly everybody has takes it off the sum, and has the few others': of all, and of a category alone.
    numbers = {name: values for name, values in design.numbers.items() if name not in categories}
    apart = {name: values != _commonest(values) for name, values in numbers.items()}
    for name, others in apart.items():
        yield name, np.array([others.sum()], np.int64)
    for name, values in numbers.items():
        for field, places in categories.items():
            cells = (values[places == place] for place in np.unique(places))
            yield (
                f"{name} by {field}",
                np.array([np.sum(each != _commonest(each)) for each in cells], np.int64),
            )
    for (one, left), (other, right) in combinations(apart.items(), 2):
        yield f"{one} by {other}", np.array([np.sum(left & right)], np.int64)
    for name, places in categories.items():
        yield name, np.bincount(places)
    for (one, left), (other, right) in combinations(categories.items(), 2):
        yield f"{one} by {other}", np.bincount(left * (int(right.max()) + 1) + right)


def _commonest(values: NDArray[np.float64]) -> float:
    different, counts = np.unique(values, return_counts=True)
    return float(different[np.argmax(counts)])


def _categories(design: Design) -> dict[str, NDArray[np.int64]]:
    """Return everybody's place in each field of categories, and in each column that has but a few numbers."""
    found = dict(design.categories)
    for name, values in design.numbers.items():
        different, places = np.unique(values, return_inverse=True)
        if 1 < len(different) <= _SOLVED:
            found[name] = places.reshape(-1).astype(np.int64)
    return found
