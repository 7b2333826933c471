"""From rows to tables that may leave: sums, quantiles and counts under a policy, and what is left out of them."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from egress_documents import ORDER, policy
from hypothesis import given
from hypothesis import strategies as st
from map_documents import ENDS, MAP_ROWS, SHARES, map_manifest, row
from roster_kit import roster

from policies.refusals import RefusalCode
from policies.rows import HIDDEN
from policies.splits import Split
from station.egress.analyses.exact import NOWHERE
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, ReplyStamp, released_reply

REQUEST = GuardRequest(ORDER, 1, "analyse", None, Path("/nonexistent/out"))
COUNTS = CohortCounts({Split.TRAINING: SplitCounts(60, 60)})
SUM: dict[str, Any] = {
    "key": "nodules_sum", "column": "nodules", "measure": "sum", "by": "sex", "decimals": 1, "split": "training",
    "minimum_cell_count": 5,
}  # fmt: skip
TOTAL: dict[str, Any] = {
    "key": "shares_sum", "column": "lung_share", "measure": "sum", "decimals": 2, "split": "training",
    "minimum_cell_count": 5,
}  # fmt: skip
QUARTILES: dict[str, Any] = {
    "key": "quartiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
    "probabilities": [0.25, 0.5, 0.75], "split": "training", "minimum_cell_count": 5,
}  # fmt: skip
ALL = [SHARES, ENDS, SUM, TOTAL, QUARTILES]


def counted(
    answers: list[dict[str, Any]],
    *items: dict[str, Any],
    rows: dict[str, Any] = MAP_ROWS,
    crashed: int = 0,
    **release: Any,
) -> Release:
    """Count answers under a policy; of the last ones, so many gave none at all."""
    manifest = map_manifest(aggregates=list(items), rows=rows)
    rules = {
        "metrics": [],
        "tables": [item["key"] for item in items],
        "trust_statement": None,
        "minimum_cell_count": 5,
    }
    tally = Tally(manifest, roster(training=len(answers)))
    for number, each in enumerate(answers):
        if number >= len(answers) - crashed:
            tally.failed(f"training{number}", "crash")
        tally.answered(f"training{number}", each)
    contract = ReleaseContract.build(manifest, policy("analysis", **{**rules, **release}), None)
    outcome = Guard(contract, COUNTS).count(REQUEST, tally)
    assert isinstance(outcome, Release), outcome
    return outcome


def women(count: int) -> list[dict[str, Any]]:
    return [row(0.1 + number / 130, 10 + number % 7, "F") for number in range(count)]


def men(count: int) -> list[dict[str, Any]]:
    return [row(0.3 + number / 170, 20 + number % 11, "M") for number in range(count)]


def test_sums_leave_with_their_patients_rounded_to_declared_decimals() -> None:
    release = counted([*women(20), *men(25)], TOTAL)
    values = [each["lung_share"] for each in [*women(20), *men(25)]]
    ((patients, total, squares),) = release.tables["shares_sum"]
    assert (patients, total, squares) == (
        45, round(math.fsum(values), 2), round(math.fsum(value * value for value in values), 2),
    )  # fmt: skip
    assert type(patients) is int
    assert counted([*women(20), *men(25)], TOTAL, count_rounding=10).tables["shares_sum"][0][0] == 50
    assert counted(list(reversed([*women(20), *men(25)])), TOTAL).tables == release.tables


def test_a_line_of_few_patients_is_hidden_with_its_sums() -> None:
    release = counted([*women(20), *men(3), *[row(0.5, 9, None)] * 4], SUM)
    told = release.tables.get("nodules_sum", ())
    assert all(line[0] == HIDDEN or line[0] >= 5 for line in told)
    assert all(line[1:] == (0.0, 0.0) for line in told if line[0] == HIDDEN)
    assert not told or HIDDEN in {line[0] for line in told}


def test_few_without_a_value_leave_the_sum_out_whole() -> None:
    release = counted([*women(20), *men(25), row(None, 1, "F"), row(None, 2, "M")], TOTAL)
    assert release.tables == {}
    assert [(item.key, item.code) for item in release.suppressed] == [
        ("shares_sum", RefusalCode.RELEASE_CELL_TOO_SMALL)
    ]
    many = counted([*women(20), *men(25), *[row(None, 1, "F")] * 9], TOTAL)
    assert many.tables["shares_sum"][0][0] == 45


EDGES = [0.15, 0.25, 0.4, 0.6]
LACKING = (
    "1 to 4 patients lack lung_share: declare the rows `complete: true` (who lacks a column has no row then), "
    "or leave the column out"
)
HIDES = "lung_shares, a count of the same column, hides bins: merge its outer bins or drop one of the two"
DOMINATED = (
    "few patients make up most of a number of it, or it follows nearly from another table: "
    "use fewer lines or narrower bounds, or drop one of the two"
)
SMALL = (
    "cells hold 1 to 9 patients, and with what has to be hidden beside them nothing is left: "
    "use fewer and wider bins, or leave the second column out"
)
WHY: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = {
    "lacking": ([*women(20), *men(25), row(None, 1, "F")], [TOTAL], LACKING),
    "lacking, counted": ([*[row(0.1)] * 9, row(None)], [SHARES], LACKING),
    "hiding count": (
        [*[row(0.1)] * 20, *[row(0.2)] * 20, *[row(0.3)] * 3, *[row(0.5)] * 2, *[row(0.8)] * 20],
        [{**SHARES, "edges": EDGES}, {**QUARTILES, "edges": EDGES}],
        HIDES,
    ),
    "dominated": (
        [*[row(0.001 * number, 0, "F") for number in range(20)], row(1.0, 99, "F")],
        [TOTAL],
        DOMINATED,
    ),
    "small": (
        [*[row(0.1)] * 9, *[row(0.3)] * 2, *[row(0.6)] * 3],
        [{**SHARES, "minimum_cell_count": 10}],
        SMALL,
    ),
}


@pytest.mark.parametrize("case", sorted(WHY))
def test_what_is_left_out_says_why_and_what_helps_to_no_one_but_who_looks(case: str) -> None:
    answers, items, why = WHY[case]
    release = counted(answers, *items)
    assert release.suppressed[-1].detail == why
    reply = released_reply(release, ReplyStamp(1, "abc", 0.0, None, None))
    assert why not in reply.model_dump_json()


def test_of_rows_that_are_to_be_complete_all_tables_have_one_population() -> None:
    lacking = [row(None, 1, "F"), row(0.5, 2, None), row(None, 3, None)]
    answers = [*women(20), *men(25), *lacking]
    whole = {**MAP_ROWS, "complete": True}
    release = counted(answers, *ALL, rows=whole)
    assert release.tables["shares_sum"][0][0] == 45
    assert {key: release.tables[key] for key in ("lung_shares", "shares_sum", "quartiles")} == {
        key: counted([*women(20), *men(25)], *ALL).tables[key]
        for key in ("lung_shares", "shares_sum", "quartiles")
    }
    # Three without a row are told by no line of how it ended.
    assert all(line[0] in {45, HIDDEN, 0} for line in release.tables.get("ends", ()))
    assert not [
        table for table in release.counted if table.key != "ends" and (table.cells[45:] != NOWHERE).any()
    ]
    assert "shares_sum" not in counted(answers, *ALL).tables


def test_of_who_lacks_a_column_no_small_number_follows_from_all_tables_together() -> None:
    # Every small cohort: so many complete, so many who lack a column, so many whose program failed.
    worlds: dict[str, set[int]] = {}
    items = [{**SHARES, "minimum_cell_count": 3}, {**ENDS, "minimum_cell_count": 3}]
    for size, lacking in itertools.product(range(4, 11), range(5)):
        for failed in range(min(5, size - lacking + 1)):
            answers = [
                *[row(0.1)] * (size - lacking - failed), *[row(0.1, 0, None)] * lacking, *[{"no": "row"}] * failed,
            ]  # fmt: skip
            release = counted(
                answers, *items, rows={**MAP_ROWS, "complete": True}, crashed=failed,
                minimum_cell_count=3, minimum_patients_per_metric=1,
            )  # fmt: skip
            told = repr((size, sorted(release.tables.items())))
            worlds.setdefault(told, set()).add(lacking)
    assert len(worlds) > 20
    assert not [numbers for numbers in worlds.values() if len(numbers) == 1 and 0 < min(numbers) < 3]


def test_one_patient_who_is_nearly_all_of_a_sum_is_not_told() -> None:
    dominated = [
        *[row(0.0, 0, "F")] * 8,
        *[row(0.001 * number, 0, "F") for number in range(12)],
        row(1.0, 99, "F"),
    ]
    release = counted(dominated, TOTAL)
    assert release.tables == {}
    assert release.suppressed[0].code is RefusalCode.RELEASE_DOMINATED


def test_no_minus_zero_and_no_more_decimals_leave() -> None:
    manifest = {"columns": [{"name": "x", "type": "float", "minimum": -1.0, "maximum": 1.0}]}
    items = [
        {
            "key": "xs",
            "column": "x",
            "measure": "sum",
            "decimals": 1,
            "split": "training",
            "minimum_cell_count": 1,
        }
    ]
    made = map_manifest(rows=manifest, aggregates=items)
    tally = Tally(made, roster(training=40))
    for number in range(40):
        # As many below zero as above, but for a little: the sum is nearly nothing, from below.
        tally.answered(f"training{number}", {"x": (number // 2) / 40 * (-1) ** number - 0.0005})
    rules = policy("analysis", metrics=[], tables=["xs"], trust_statement=None, minimum_cell_count=1)
    outcome = Guard(ReleaseContract.build(made, rules, None), COUNTS).count(REQUEST, tally)
    assert isinstance(outcome, Release)
    ((patients, total, squares),) = outcome.tables["xs"]
    assert (patients, str(total), squares) == (40, "0.0", 3.1)


def test_what_leaves_names_no_patient_and_fits_the_wire() -> None:
    release = counted([*women(20), *men(25)], *ALL)
    reply = released_reply(release, ReplyStamp(1, "abc", 0.0, None, None))
    assert "project-" not in reply.model_dump_json()
    assert {table.key for table in release.counted} == set(release.tables)
    assert release.counted[0].patients[0] == "project-training0"


shares = st.none() | st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0]) | st.floats(0, 1)
rows = st.builds(row, shares, st.integers(0, 99), st.sampled_from(["F", "M", None]))


@pytest.mark.parametrize("items", [ALL, [SUM, SHARES], [TOTAL, QUARTILES], [SUM, ENDS]])
@given(data=st.data())
def test_no_rows_make_the_guard_raise_or_tell_a_small_number(
    items: list[dict[str, Any]], data: st.DataObject
) -> None:
    answers = data.draw(st.lists(rows | st.none(), max_size=40))
    minimum = data.draw(st.integers(1, 12))
    changed = [{**item, "minimum_cell_count": minimum} for item in items]
    release = counted(answers, *changed, minimum_cell_count=1, minimum_patients_per_metric=1)
    for item in changed:
        table = release.tables.get(item["key"])
        if table is None:
            continue
        numbers = (
            [line[0] for line in table]
            if item.get("measure") == "sum"
            else [cell for line in table for cell in line]
        )
        if item.get("measure") == "quantiles":
            assert all(low < high for low, high in table)
        else:
            assert not [cell for cell in numbers if 0 < cell < minimum]
            assert all(type(cell) is int for cell in numbers)
