"""Counting by the station: rows become exact tables by project pseudonyms, whatever a train answers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from map_documents import BY_SEX, ENDS, MAP_ROWS, SHARES, map_manifest, row
from roster_kit import roster

from policies.documents import canonical_json, load_json
from policies.manifest import TrainManifest
from policies.rows import RowColumn, bin_of
from policies.splits import Split
from station.egress.analyses.exact import NOWHERE
from station.egress.analyses.tally import Tally, clinical_value, stated_cells

SUM: dict[str, Any] = {
    "key": "nodules_sum", "column": "nodules", "measure": "sum", "by": "sex", "decimals": 2, "split": "training",
}  # fmt: skip
TOTAL: dict[str, Any] = {
    "key": "shares_sum", "column": "lung_share", "measure": "sum", "decimals": 3, "split": "training",
}  # fmt: skip
QUARTILES: dict[str, Any] = {
    "key": "quartiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
    "probabilities": [0.25, 0.5, 0.75], "split": "training",
}  # fmt: skip
MEASURED = map_manifest(aggregates=[SHARES, BY_SEX, ENDS, SUM, TOTAL, QUARTILES])


def filled(manifest: TrainManifest = MEASURED, patients: int = 6) -> Tally:
    tally = Tally(manifest, roster(training=patients, validation=2))
    for number, answer in enumerate(
        [
            row(0.1, 3, "F"),
            row(0.25, 0, "M"),
            row(None, 7, "F"),
            row(0.9, 2, None),
            row(2.0),
            row(0.3, 5, "F"),
        ]
    ):
        tally.answered(f"training{number}", answer)
    return tally


def exact(tally: Tally, key: str, granted: frozenset[str] | None = None) -> Any:
    (item,) = [item for item in tally.manifest.outputs.aggregates if item.key == key]
    return tally.exact(item, 5, granted)


def test_cells_name_each_patient_of_the_split_by_the_projects_pseudonym() -> None:
    table = exact(filled(), "lung_shares")
    assert table.patients == tuple(f"project-training{number}" for number in range(6))
    assert table.cells.tolist() == [0, 1, 3, 2, NOWHERE, 1]
    assert table.counts.tolist() == [[1], [2], [1], [1]]
    crosstab = exact(filled(), "nodules_by_sex")
    assert crosstab.shape == (3, 3)
    # Nodules between 1 and 10 are the second line; a sex that is missing the third column.
    assert crosstab.cells.tolist() == [3, 1, 3, 5, NOWHERE, 3]


def test_sums_hold_each_value_once_and_leave_out_who_has_none() -> None:
    table = exact(filled(), "nodules_sum")
    assert (table.shape, table.value_column, table.bounds) == ((3, 1), "nodules", (0.0, 99.0))
    assert table.cells.tolist() == [0, 1, 0, 2, NOWHERE, 0]
    assert table.values.tolist() == [3.0, 0.0, 7.0, 2.0, 0.0, 5.0]
    total = exact(filled(), "shares_sum")
    assert total.shape == (1, 1)
    assert total.cells.tolist() == [0, 0, NOWHERE, 0, NOWHERE, 0]
    assert filled().without_value(MEASURED.outputs.aggregates[4]) == (1,)


def test_quantiles_count_bins_without_who_is_missing() -> None:
    table = exact(filled(), "quartiles")
    assert table.counts.tolist() == [[1], [2], [1]]
    assert table.probabilities == (0.25, 0.5, 0.75)


def test_how_it_ended_has_lines_for_granted_codes_only() -> None:
    tally = filled(patients=8)
    tally.failed("training6", "NO_LUNG")
    tally.failed("training7", "timeout")
    assert tally.outcome_lines(frozenset()) == ("answered", "crash", "timeout", "oom", "protocol", "row")
    assert exact(tally, "ends", frozenset()).counts.ravel().tolist() == [5, 1, 1, 0, 0, 1]
    assert exact(tally, "ends", frozenset({"NO_LUNG"})).counts.ravel().tolist() == [5, 1, 0, 1, 0, 0, 1]


def test_nobody_is_counted_twice_nor_who_is_not_in_the_cohort() -> None:
    tally = filled()
    assert not tally.answered("training0", row(0.9))
    assert not tally.answered("project-training1", row(0.9))
    tally.failed("training0", "crash")
    tally.failed("nobody", "crash")
    assert tally.ends == {"answered": 5, "row": 1}
    assert exact(tally, "lung_shares").cells.tolist()[0] == 0


ROW_OF_ALL = {"lung_share": [0.1, None, 0.9], "nodules": [0, 1, 2], "sex": ["F", "M", None]}


def everybody(**changes: Any) -> tuple[Tally, str | None]:
    document = map_manifest(aggregates=[SHARES]).model_dump(mode="json") | {"interface": "command"}
    tally = Tally(
        load_json(TrainManifest, canonical_json(document), what="train.yaml"),
        roster(training=3, validation=9),
    )
    return tally, tally.take({**ROW_OF_ALL, **changes})


def test_rows_of_everybody_are_of_the_splits_that_are_counted_in_the_order_of_the_list() -> None:
    tally, problem = everybody()
    assert problem is None
    assert tally.stated_patients() == ("training0", "training1", "training2")
    assert exact(tally, "lung_shares").cells.tolist() == [0, 3, 2]
    assert stated_cells(tally.manifest, roster(training=3, validation=9)) == 9
    assert stated_cells(MEASURED, roster(training=3)) == 0
    # A category by its place, as Flower's lists of numbers have it.
    placed, problem = everybody(sex=[1, 0, None])
    assert problem is None
    assert placed.ends == {"answered": 3}


WRONG: list[dict[str, Any]] = [
    {"lung_share": [0.1, None]},
    {"lung_share": [0.1] * 4},
    {"lung_share": [0.1, None, 2.0]},
    {"lung_share": [0.1, None, math.nan]},
    {"lung_share": [0.1, None, True]},
    {"nodules": [0, 1, None]},
    {"nodules": [0, 1, 1.0]},
    {"sex": ["F", "M", "X"]},
    {"sex": [0, 1, 2]},
    {"sex": [0, 1, True]},
    {"sex": "FMF"},
    {"more": [1, 2, 3]},
    {"lung_share": {"training0": 0.1}},
]


@pytest.mark.parametrize("changes", WRONG)
def test_one_wrong_value_and_nobody_is_taken(changes: dict[str, Any]) -> None:
    tally, problem = everybody(**changes)
    assert problem is not None
    assert tally.ends == {}


@pytest.mark.parametrize("rows", [None, [], "rows", 1, {}, {"lung_share": [0.1] * 3}])
def test_what_is_no_object_of_all_columns_is_not_taken(rows: object) -> None:
    tally = Tally(MEASURED, roster(training=3))
    assert tally.take(rows) is not None
    assert tally.ends == {}


# -- clinical columns -------------------------------------------------------------------------------------------------

CLINICAL = {
    **MAP_ROWS,
    "columns": [
        MAP_ROWS["columns"][0],
        {"name": "crp_mg_l", "type": "float", "minimum": 0, "maximum": 100, "source": "clinical"},
        {"name": "age_years", "type": "category", "categories": ["50-59", "60-69"], "missing": True, "source": "clinical"},
    ],
}  # fmt: skip
SHOWN = {
    "crp_mg_l": {
        "training0": ("20",),
        "training1": ("50", "30"),
        "training2": ("900",),
        "training3": ("none",),
    },
    "age_years": {"training0": ("60-69",), "training1": ("60-69", "50-59"), "training4": ("90+",)},
}


def clinical() -> TrainManifest:
    return map_manifest(
        {
            "data": {
                "modalities": ["CT"],
                "profile": "thorax-1@1",
                "clinical_fields": ["crp_mg_l", "age_years"],
            }
        },
        rows=CLINICAL,
        aggregates=[
            {"key": "ages", "column": "age_years", "split": "training"},
            {"key": "crp", "column": "crp_mg_l", "measure": "sum", "decimals": 0, "split": "training"},
            ENDS,
        ],
    )


def test_clinical_columns_come_from_the_station_and_never_from_the_train() -> None:
    tally = Tally(clinical(), roster(SHOWN, training=5))
    for number in range(5):
        stated = {"lung_share": 0.1} if number else {"lung_share": 0.1, "crp_mg_l": 99.0}
        tally.answered(f"training{number}", stated)
    # Stated by the train; shown; out of range; no number; not shown at all and not to be missing.
    assert tally.ends == {"answered": 1, "row": 4}
    assert exact(tally, "crp").values.tolist() == [0.0, 30.0, 0.0, 0.0, 0.0]
    assert exact(tally, "ages").cells.tolist() == [NOWHERE, 0, NOWHERE, NOWHERE, NOWHERE]


NUMBER = RowColumn(name="x", type="int", minimum=0, maximum=9, source="clinical")


@pytest.mark.parametrize(
    ("column", "shown", "value"),
    [
        (NUMBER, ("3",), 3),
        (NUMBER, ("7", "3"), 3),
        (NUMBER, ("99", "3"), 3),
        (NUMBER, ("99",), 99),
        (NUMBER, ("3.5",), "3.5"),
        (NUMBER.model_copy(update={"missing": True}), ("99",), None),
        (NUMBER.model_copy(update={"missing": True}), ("3.5",), None),
        (NUMBER.model_copy(update={"type": "float"}), ("nan",), math.nan),
    ],
)
def test_of_several_values_the_same_is_taken_for_every_train(
    column: RowColumn, shown: tuple[str, ...], value: object
) -> None:
    found = clinical_value(column, shown)
    assert found == value or (isinstance(found, float) and math.isnan(found))
    assert column.accepts(found) is (value in (3, None))


# -- whatever comes --------------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["F", 0.3, 0, 10**400])
)
lists = st.lists(scalars, max_size=5) | st.lists(
    st.sampled_from([0, 1, 0.25, None, "F"]), min_size=3, max_size=3
)
objects = st.dictionaries(
    st.sampled_from(["lung_share", "nodules", "sex", "extra"]), lists | scalars, max_size=4
)


@given(st.lists(objects | scalars | lists, max_size=8), objects | scalars | lists)
def test_no_answer_and_no_rows_make_counting_raise(answers: list[object], rows: object) -> None:
    tally = Tally(MEASURED, roster(training=3, validation=1))
    tally.take(rows)
    for number, answer in enumerate(answers):
        tally.answered(f"training{number % 4}", answer)
    for item in MEASURED.outputs.aggregates:
        table = tally.exact(item, 5, frozenset())
        assert len(table.patients) == len(table.cells) == 3
        assert table.counts.sum() <= 3
        assert table.values is None or np.isfinite(table.values).all()
    assert sum(tally.ends.values()) <= 4


@given(st.floats(0, 1), st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True).map(sorted))
def test_bins_are_those_of_the_documents(share: float, hundredths: list[int]) -> None:
    edges = [step / 100 for step in hundredths]
    manifest = map_manifest(aggregates=[{**SHARES, "edges": edges}])
    column = RowColumn(name="lung_share", type="float", minimum=0.0, maximum=1.0)
    tally = Tally(manifest, roster(training=1))
    tally.answered("training0", row(share))
    assert exact(tally, "lung_shares").cells.tolist() == [bin_of(column, tuple(edges), share)]


def test_memory_is_a_number_per_patient_and_column() -> None:
    tally = Tally(MEASURED, roster(training=1000))
    kept = sum(values.nbytes for values in tally._values.values()) + tally._ends.nbytes
    assert kept == 1000 * (8 * 3 + 2)


def test_a_split_that_is_not_counted_is_in_no_table() -> None:
    tally = filled()
    tally.answered("validation0", row(0.1))
    assert exact(tally, "lung_shares").counts.sum() == 5
    assert tally.outcomes(Split.VALIDATION) == {"answered": 1}
