"""The guard on a map train's rows: the station counts, small counts stay, and nobody can reckon them."""

from pathlib import Path
from typing import Any

import pytest
from egress_documents import ORDER, head, policy
from hypothesis import given
from hypothesis import strategies as st
from map_documents import BY_SEX, ENDS, SHARES, map_manifest, row
from roster_kit import roster

from policies.refusals import RefusalCode
from policies.rows import HIDDEN
from policies.splits import Split
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, Withheld

COUNTS = CohortCounts({Split.TRAINING: SplitCounts(60, 60)})
REQUEST = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))
TABLES = ["lung_shares", "nodules_by_sex", "ends"]


def guard(aggregates: list[dict[str, Any]] | None = None, **release: Any) -> tuple[Guard, Tally]:
    manifest = map_manifest() if aggregates is None else map_manifest(aggregates=aggregates)
    rules = {
        "metrics": [], "tables": TABLES, "trust_statement": None, "minimum_cell_count": 5, "error_codes": ["NO_LUNG"],
        **release,
    }  # fmt: skip
    contract = ReleaseContract.build(manifest, policy("analysis", **rules), None)
    return Guard(contract, COUNTS), Tally(manifest, roster(training=200, validation=20))


def fill(tally: Tally, *answers: tuple[int, object]) -> None:
    for count, answer in answers:
        for _ in range(count):
            tally.answered(free(tally), answer)


def free(tally: Tally) -> str:
    """The next patient who was not counted yet."""
    return f"training{sum(tally.outcomes(Split.TRAINING).values())}"


def released(outcome: Release | Withheld) -> Release:
    assert isinstance(outcome, Release), outcome
    return outcome


def test_patients_are_counted_per_bin_and_how_it_ended() -> None:
    judge, tally = guard()
    fill(tally, (10, row(0.1)), (20, row(0.3, sex="M")), (9, row(None, 5, None)), (6, row(2.0)))
    for _ in range(7):
        tally.failed(free(tally), "NO_LUNG")
    tally.answered("validation0", row(0.1))
    release = released(judge.count(REQUEST, tally))
    assert release.tables["lung_shares"] == ((10,), (20,), (0,), (9,))
    assert release.tables["nodules_by_sex"] == ((10, 20, 0), (0, 0, 9), (0, 0, 0))
    assert release.tables["ends"] == ((39,), (7,), (0,), (0,), (0,), (0,), (6,))
    assert tally.failures == 13
    assert not release.metrics
    assert release.num_examples == 60


def test_an_undeclared_code_counts_as_a_crash() -> None:
    judge, tally = guard([ENDS])
    fill(tally, (20, row()))
    for _ in range(6):
        tally.failed(free(tally), "J_JANSEN")
    assert released(judge.count(REQUEST, tally)).tables["ends"][2] == (6,)


def test_a_code_that_the_policy_does_not_grant_is_counted_as_a_crash() -> None:
    judge, tally = guard([ENDS], error_codes=[])
    fill(tally, (20, row()))
    for code, times in (("NO_LUNG", 7), ("crash", 6)):
        for _ in range(times):
            tally.failed(free(tally), code)
    assert released(judge.count(REQUEST, tally)).tables["ends"] == (
        (20,), (0,), (13,), (0,), (0,), (0,), (0,),
    )  # fmt: skip
    # Its line hides nothing either: that nobody is in it is known.
    fill(tally, (3, row(2.0)))
    told = released(judge.count(REQUEST, tally)).tables["ends"]
    assert told[:3] == ((20,), (0,), (HIDDEN,))
    assert set(told[3:]) == {(HIDDEN,)}


def test_small_cells_are_hidden_with_what_would_tell_them() -> None:
    judge, tally = guard([SHARES])
    fill(tally, (3, row(0.1)), (8, row(0.3)), (30, row(0.7)))
    assert released(judge.count(REQUEST, tally)).tables["lung_shares"] == (
        (HIDDEN,),
        (HIDDEN,),
        (30,),
        (HIDDEN,),
    )


def test_a_cell_that_leaves_few_outside_it_is_hidden_too() -> None:
    judge, tally = guard([SHARES])
    fill(tally, (56, row(0.1)), (4, row(0.3)))
    release = released(judge.count(REQUEST, tally))
    assert not release.tables
    assert [item.code for item in release.suppressed] == [RefusalCode.RELEASE_CELL_TOO_SMALL]


def test_a_table_that_shares_a_column_hides_itself_whole() -> None:
    by_sex = {**SHARES, "key": "shares_by_sex", "by": "sex"}
    judge, tally = guard([SHARES, by_sex], tables=["lung_shares", "shares_by_sex"])
    fill(tally, (3, row(0.1)), (9, row(0.1, sex="M")), (20, row(0.3)), (20, row(0.3, sex="M")))
    release = released(judge.count(REQUEST, tally))
    # 12 of the first bin less 9 men would have told the 3 women.
    assert set(release.tables) == {"lung_shares"}
    alone, tally = guard([SHARES, by_sex], tables=["shares_by_sex"])
    fill(tally, (12, row(0.1)), (12, row(0.1, sex="M")), (20, row(0.3)), (20, row(0.3, sex="M")))
    assert set(released(alone.count(REQUEST, tally)).tables) == {"shares_by_sex"}


def test_the_stricter_minimum_holds_whoever_sets_it() -> None:
    for cells, minimum in ((5, 11), (11, 5)):
        judge, tally = guard([{**SHARES, "minimum_cell_count": cells}], minimum_cell_count=minimum)
        fill(tally, (10, row(0.1)), (30, row(0.3)), (12, row(0.7)))
        assert released(judge.count(REQUEST, tally)).tables["lung_shares"] == (
            (HIDDEN,),
            (30,),
            (HIDDEN,),
            (HIDDEN,),
        )


def test_what_the_policy_does_not_permit_or_too_few_make_up_stays() -> None:
    judge, tally = guard(tables=["ends"], minimum_patients_per_metric=10)
    fill(tally, (9, row(0.1)))
    release = released(judge.count(REQUEST, tally))
    assert not release.tables
    assert {(item.key, item.code) for item in release.suppressed} == {
        ("lung_shares", RefusalCode.RELEASE_NOT_PERMITTED),
        ("nodules_by_sex", RefusalCode.RELEASE_NOT_PERMITTED),
        ("ends", RefusalCode.RELEASE_TOO_FEW_PATIENTS),
    }


def test_counts_are_rounded_where_the_policy_says_so() -> None:
    judge, tally = guard([SHARES], count_rounding=10)
    fill(tally, (14, row(0.1)), (15, row(0.3)), (21, row(0.7)))
    assert released(judge.count(REQUEST, tally)).tables["lung_shares"] == ((10,), (20,), (20,), (0,))


@pytest.mark.parametrize(
    "stated", [{"rows": {"lung_shares": [50, 50, 50, 50]}}, {"rows": {"lung_share": [0.1] * 60}}]
)
def test_a_map_train_states_no_rows_of_everybody(stated: dict[str, Any]) -> None:
    judge, _ = guard()
    outcome = judge.check(REQUEST, head(metrics={}, **stated), None)
    assert isinstance(outcome, Withheld)
    assert outcome.code is RefusalCode.RELEASE_ROWS_SHAPE


def test_a_train_of_no_rows_is_not_counted() -> None:
    contract = ReleaseContract.build(
        map_manifest().model_copy(update={"outputs": map_manifest().outputs.model_copy(update={"aggregates": ()})}),
        policy("analysis", metrics=[], trust_statement=None), None,
    )  # fmt: skip
    outcome = Guard(contract, COUNTS).count(REQUEST, Tally(map_manifest(), roster()))
    assert isinstance(outcome, Withheld)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["F", 0.3, 0, 10**400])
)
answers = scalars | st.lists(scalars, max_size=2) | st.dictionaries(
    st.sampled_from(["lung_share", "nodules", "sex", "extra"]), scalars, max_size=4
)  # fmt: skip


@given(st.lists(answers, max_size=60), st.integers(1, 12))
def test_no_rows_make_it_raise_or_tell_a_small_number(given_rows: list[object], minimum: int) -> None:
    judge, tally = guard(
        [{**item, "minimum_cell_count": minimum} for item in (SHARES, BY_SEX, ENDS)],
        minimum_cell_count=1, minimum_patients_per_metric=1,
    )  # fmt: skip
    for answer in given_rows:
        tally.answered(free(tally), answer)
    release = released(judge.count(REQUEST, tally))
    told = [cell for table in release.tables.values() for line in table for cell in line]
    assert not [cell for cell in told if 0 < cell < minimum]
    assert all(type(cell) is int for cell in told)
    assert sum(tally.ends.values()) == len(given_rows)
