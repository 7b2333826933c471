"""Attack: a sum that one patient makes up, or two of whom one knows the other's part, tells that patient's value."""

from typing import Any

import numpy as np
import pytest
from suppression_kit import category, number, released, sum_of

from policies.refusals import RefusalCode

HIGH = 5000.0
SIZE = number("size", 0.0, HIGH)
SEX = category("sex", 3)


def nearest(line: Any, own: float, true: float) -> float:
    """Return how near who contributed `own` comes to the largest value, relative to it.

    From patients, sum and sum of squares: no value is negative, so the largest is at most what is left of the sum, at most the root
    of what is left of the squares, and at most the spread of the others times the root of their number above their mean.
    """
    count, total, squares = line
    left, left_squares, others = total - own, squares - own * own, count - 1
    spread = np.sqrt(max(left_squares / others - (left / others) ** 2, 0.0))
    bound = min(left, np.sqrt(left_squares), left / others + spread * np.sqrt(others - 1))
    return float(abs(bound - true) / true)


def unprotected(values: list[float]) -> tuple[int, float, float]:
    return len(values), sum(values), sum(value * value for value in values)


def release_of(values: list[float], lines: list[int] | None = None, **dominance: Any) -> Any:
    by = None if lines is None else "sex"
    rows = [{"size": value, "sex": str(0 if lines is None else lines[n])} for n, value in enumerate(values)]
    rules = {"dominance": dominance} if dominance else {}
    return released([SIZE, SEX], [sum_of("size", by)], rows, **rules)


def stays(values: list[float], **dominance: Any) -> None:
    release = release_of(values, **dominance)
    assert not release.tables
    assert [item.code for item in release.suppressed] == [RefusalCode.RELEASE_DOMINATED]


def test_one_patient_among_zeros() -> None:
    """The train writes zero for everybody but one (DataSHIELD's attack by a vector of zeros and a one)."""
    values = [0.0] * 199 + [1234.5]
    assert nearest(unprotected(values), 0.0, 1234.5) == pytest.approx(0.0)
    stays(values)


def test_one_large_value_among_small_ones() -> None:
    values = [1.0 + (place % 5) / 10 for place in range(60)] + [4000.0]
    assert nearest(unprotected(values), max(values[:-1]), 4000.0) < 0.03
    stays(values)


def test_two_patients_one_of_whom_knows_her_own_part() -> None:
    """No one value has most of the sum, and the second largest still takes hers away."""
    values = [2000.0, 1900.0] + [1.0 + place % 4 for place in range(50)]
    assert nearest(unprotected(values), 1900.0, 2000.0) < 0.07
    stays(values)
    # The (n, k) rule for one contributor would let it pass; p% does not.
    stays(values, largest=1, share=0.9, p_percent=10)


def test_mean_and_spread_of_alike_others() -> None:
    """The sum hides the largest well; with the sum of squares it is the mean and so many times the spread, exactly."""
    values = [900.0] + [100.0] * 60
    line = unprotected(values)
    assert (line[1] - 100.0 - 900.0) / 900.0 > 6  # what the sum alone leaves open
    assert nearest(line, 100.0, 900.0) < 1e-6
    stays(values)


def test_one_far_below_a_bound_that_everybody_knows() -> None:
    values = [HIGH - 1 - place % 3 for place in range(60)] + [1700.0]
    # Everybody else is nearly at the bound: what is missing of so many times the bound is the one's.
    missing = len(values) * HIGH - sum(values)
    assert (missing - (HIGH - 1700.0)) / (HIGH - 1700.0) < 0.04
    stays(values)


def test_one_value_copied_to_many_patients() -> None:
    """A train that sees everybody may write one patient's value for fifty; the mean of them is the value."""
    copies = [777.0] * 50
    assert sum(copies) / 50 == 777.0
    stays(copies)
    jittered = [777.0 * (1 + (place - 25) / 5000) for place in range(50)]
    assert abs(sum(jittered) / 50 / 777.0 - 1) < 0.001
    stays(jittered)
    mixed = [777.0] * 50 + [0.0] * 5
    stays(mixed)


def test_a_dominated_line_takes_another_with_it() -> None:
    """Left out alone it would be the sum of all less the told lines, and the sum of all is told by another table."""
    generator = np.random.default_rng(4)
    values = [float(value) for value in generator.uniform(100, 900, 180)]
    lines = [place % 3 for place in range(180)]
    for place in range(0, 180, 3):
        values[place] = 1.0 + place % 4
    values[0] = HIGH
    total, told = (
        sum(values),
        [sum(v for v, at in zip(values, lines, strict=True) if at == n) for n in (1, 2)],
    )
    assert (total - sum(told) - HIGH) / HIGH < 0.05

    table = release_of(values, lines).tables["sum_size_sex"]
    hidden = [line[0] == -1 for line in table]
    assert hidden[0]
    assert 2 <= sum(hidden) <= 2
    # What the hidden lines have together is far from the one's value.
    together = total - sum(line[1] for line in table if line[0] != -1)
    assert together > 2 * HIGH


def test_an_honest_mean_is_told() -> None:
    values = [float(value) for value in np.random.default_rng(5).normal(1500, 300, 80)]
    ((count, total, squares),) = release_of(values).tables["sum_size_all"]
    assert count == 80
    assert total == pytest.approx(sum(values), abs=0.001)
    assert nearest((count, total, squares), sorted(values)[-2], max(values)) > 0.1


def test_a_sum_beside_narrow_bins_of_its_own_column() -> None:
    """The bins tell what nearly all add; what is left of the sum is one bin's, and one patient makes that up."""
    # All ten are odd and no multiples of five: no step tells fewer of them apart from the others.
    small = [11.0, 13.0, 17.0, 19.0, 21.0, 23.0, 27.0, 29.0, 31.0]
    values = [1000.0, 2000.0, 3000.0] * 70 + small + [987.0]
    rows = [{"size": value, "sex": "0"} for value in values]
    edges = [10.0, 1000.0, 1001.0, 2000.0, 2001.0, 3000.0, 3001.0]
    bins = {"key": "sizes", "column": "size", "edges": edges, "split": "training", "minimum_cell_count": 1}
    counts = [line[0] for line in released([SIZE, SEX], [bins], rows).tables["sizes"]]
    ((_, total, _),) = released([SIZE, SEX], [sum_of("size")], rows).tables["sum_size_all"]
    left = total - sum(
        edge * count for edge, count in zip([0.0, *edges], counts, strict=True) if edge >= 1000
    )
    assert counts[1] == 10
    assert abs(left - sum(small) - 987.0) < 1e-6

    release = released([SIZE, SEX], [bins, sum_of("size")], rows)
    assert set(release.tables) == {"sizes"}
    assert [item.code for item in release.suppressed] == [RefusalCode.RELEASE_DOMINATED]
    # Beside wide bins it is told: they leave open what the others add.
    wide = {**bins, "edges": [1500.0, 2500.0]}
    assert set(released([SIZE, SEX], [wide, sum_of("size")], rows).tables) == {"sizes", "sum_size_all"}
