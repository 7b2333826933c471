"""Attack: quantiles at many probabilities, whose edges close in on a bin that holds few patients.

Intervals that are widened around each quantile by itself overlap, and the ranks in them tell how many lie in the overlap and beside it:
the first test reckons out small numbers that way, so that the others mean something. What a station tells are groups of bins, put
together before anybody asks for a quantile.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from egress_documents import ORDER, policy
from hypothesis import given
from hypothesis import strategies as st
from map_documents import SHARES, map_manifest, row
from roster_kit import roster

from policies.refusals import RefusalCode
from policies.rows import HIDDEN
from policies.splits import Split
from station.egress.analyses.quantiles import groups, quantile_intervals
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release

Told = tuple[tuple[float, float], ...] | None
Tell = Callable[[tuple[int, ...], Sequence[float], int], Told]
ASKED = ((0.5,), (0.25, 0.5, 0.75), tuple(step / 20 for step in range(1, 20)))


def told(counts: tuple[int, ...], probabilities: Sequence[float], minimum: int) -> Told:
    return quantile_intervals(counts, range(len(counts) + 1), probabilities, minimum)


def widened(counts: tuple[int, ...], probabilities: Sequence[float], minimum: int) -> Told:
    """What a simpler guard does: from the quantile's own bin to both sides, until there are enough."""
    if sum(counts) < minimum:
        return None
    found = []
    for probability in probabilities:
        rank = max(1, math.ceil(Fraction(repr(probability)) * sum(counts)))
        low = high = next(place for place in range(len(counts)) if sum(counts[: place + 1]) >= rank)
        while sum(counts[low : high + 1]) < minimum:
            low, high = max(0, low - 1), min(len(counts) - 1, high + 1)
        found.append((float(low), float(high + 1)))
    return tuple(found)


def reckoned(tell: Tell, bins: int, patients: int, minimum: int, probabilities: Sequence[float]) -> int:
    """How many small numbers follow from what is told, the number of all and the rule: of any bins together."""
    alike: defaultdict[Told, list[tuple[int, ...]]] = defaultdict(list)
    for counts in itertools.product(range(patients + 1), repeat=bins):
        if sum(counts) == patients:
            alike[tell(counts, probabilities, minimum)].append(counts)
    found = 0
    for told_, possible in alike.items():
        if told_ is None:
            continue
        for size in range(1, bins):
            for places in itertools.combinations(range(bins), size):
                numbers = {sum(counts[place] for place in places) for counts in possible}
                found += len(numbers) == 1 and 0 < min(numbers) < minimum
    return found


def test_widening_around_each_quantile_tells_small_numbers() -> None:
    assert sum(reckoned(widened, bins, 7, 3, ASKED[2]) for bins in (2, 3, 4)) > 0


@pytest.mark.parametrize("probabilities", ASKED, ids=["median", "quartiles", "twentieths"])
def test_no_small_number_follows_from_any_quantiles_of_any_small_table(
    probabilities: tuple[float, ...],
) -> None:
    for bins, most in ((2, 10), (3, 10), (4, 8)):
        for patients, minimum in itertools.product(range(2, most + 1), (2, 3, 4)):
            assert reckoned(told, bins, patients, minimum, probabilities) == 0, (bins, patients, minimum)


counted = st.lists(st.integers(0, 30), min_size=1, max_size=12).map(tuple)


@given(
    counted,
    st.lists(st.integers(1, 999), min_size=1, max_size=8, unique=True).map(sorted),
    st.integers(1, 25),
)
def test_an_interval_holds_the_quantile_and_the_minimum_and_overlaps_no_other(
    counts: tuple[int, ...], thousandths: list[int], minimum: int
) -> None:
    probabilities = [step / 1000 for step in thousandths]
    found = told(counts, probabilities, minimum)
    if sum(counts) < minimum:
        assert found is None
        return
    assert found is not None
    assert [place for first, last in groups(counts, minimum) for place in range(first, last + 1)] == [
        *range(len(counts))
    ]
    for probability, (low, high) in zip(probabilities, found, strict=True):
        rank = math.ceil(Fraction(repr(probability)) * sum(counts))
        assert sum(counts[: int(low)]) < rank <= sum(counts[: int(high)])
        assert sum(counts[int(low) : int(high)]) >= minimum
    for one, other in itertools.combinations(found, 2):
        assert one == other or one[1] <= other[0]


# -- beside a table of the same bins ------------------------------------------------------------------------------------

QUARTILES: dict[str, Any] = {
    "key": "quartiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
    "probabilities": [0.25, 0.5, 0.75], "split": "training", "minimum_cell_count": 5,
}  # fmt: skip
REQUEST = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))


def released(*shares: float | None, tables: tuple[str, ...] = ("quartiles", "lung_shares")) -> Release:
    manifest = map_manifest(aggregates=[SHARES, QUARTILES])
    rules = policy("analysis", metrics=[], tables=list(tables), minimum_cell_count=5, trust_statement=None)
    tally = Tally(manifest, roster(training=len(shares)))
    for number, share in enumerate(shares):
        tally.answered(f"training{number}", row(share))
    counts = CohortCounts({Split.TRAINING: SplitCounts(60, 60)})
    outcome = Guard(ReleaseContract.build(manifest, rules, None), counts).count(REQUEST, tally)
    assert isinstance(outcome, Release), outcome
    return outcome


def codes(release: Release) -> dict[str, RefusalCode]:
    return {item.key: item.code for item in release.suppressed}


def test_quartiles_by_themselves_put_small_bins_together() -> None:
    release = released(*[0.1] * 3, *[0.3] * 20, *[0.7] * 20, tables=("quartiles",))
    assert release.tables["quartiles"] == ((0.0, 0.5), (0.0, 0.5), (0.5, 1.0))


def test_beside_a_count_that_hides_anything_they_stay() -> None:
    release = released(*[0.1] * 3, *[0.3] * 8, *[0.7] * 30)
    assert release.tables == {"lung_shares": ((HIDDEN,), (HIDDEN,), (30,), (HIDDEN,))}
    assert codes(release)["quartiles"] is RefusalCode.RELEASE_CELL_TOO_SMALL
    whole = released(*[0.1] * 13, *[0.3] * 20, *[0.7] * 20)
    assert whole.tables["quartiles"] == ((0.25, 0.5), (0.25, 0.5), (0.5, 1.0))
    assert whole.tables["lung_shares"] == ((13,), (20,), (20,), (0,))


def test_few_without_a_value_are_not_told_by_how_many_have_one() -> None:
    # Of 53 with a row 51 have a value: the two others would be the difference.
    release = released(*[0.1] * 13, *[0.3] * 19, *[0.7] * 19, None, None, tables=("quartiles",))
    assert codes(release)["quartiles"] is RefusalCode.RELEASE_CELL_TOO_SMALL
