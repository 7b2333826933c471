"""Rows and aggregates in a manifest: what contradicts itself is refused when it is written; what they mean is said in words."""

from typing import Any

import pytest
from egress_documents import policy
from map_documents import BY_SEX, ENDS, MAP_ROWS, SHARES, map_manifest, row

from policies.aggregates import AggregateOutput
from policies.board.documents.documents_in import Train
from policies.board.reviewing.review import review_policy, review_train
from policies.errors import DocumentError
from policies.manifest import TrainManifest
from policies.rows import RowColumn
from policies.rules.capacity import capacity, trust_in_words
from policies.splits import Split

NUMBER = {"name": "share", "type": "float", "minimum": 0.0, "maximum": 1.0}
CATEGORY = {"name": "sex", "type": "category", "categories": ["F", "M"]}


def rows(*columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"columns": list(columns), **more}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rows": None}, "come together"),
    ({"aggregates": []}, "come together"),
    ({"metrics": [{"key": "n", "stage": "analyse", "minimum": 0, "maximum": 1, "split": "training"}]}, "counts its rows"),
    ({"aggregates": [SHARES, SHARES]}, "named twice"),
    ({"aggregates": [SHARES, {**SHARES, "key": "finer", "edges": [0.25, 0.51]}]}, "other edges"),
    ({"aggregates": [SHARES, {**SHARES, "key": "finer", "edges": [0.25, 0.51], "by": "sex"}]}, "have other edges"),
    ({"aggregates": [{**SHARES, "split": "testing"}]}, "given none"),
    ({"aggregates": [{**SHARES, "column": "weight"}]}, "do not have"),
    ({"aggregates": [{**SHARES, "edges": []}]}, "has edges"),
    ({"aggregates": [{**SHARES, "edges": [0.5, 0.25]}]}, "do not increase"),
    ({"aggregates": [{**SHARES, "edges": [0.0, 0.5]}]}, "do not increase"),
    ({"aggregates": [{**SHARES, "edges": [0.5, 1.0]}]}, "do not increase"),
    ({"aggregates": [{**SHARES, "column": "sex"}]}, "none for a category"),
    ({"aggregates": [{**BY_SEX, "by": "lung_share"}]}, "no other category"),
    ({"aggregates": [{**SHARES, "column": "sex", "edges": [], "by": "sex"}]}, "no other category"),
    ({"aggregates": [{**ENDS, "edges": [1.0]}]}, "without edges"),
    ({"rows": rows({**NUMBER, "name": "outcome"})}, "station's own"),
    ({"rows": rows({**NUMBER, "minimum": 1.0})}, "below maximum"),
    ({"rows": rows({**NUMBER, "maximum": None})}, "a minimum and a maximum"),
    ({"rows": rows({**CATEGORY, "categories": ["F", "F"]})}, "named once"),
    ({"rows": rows({**CATEGORY, "categories": ["missing"]})}, "named once"),
    ({"rows": rows({**CATEGORY, "minimum": 0.0})}, "no minimum"),
    ({"rows": rows(NUMBER, NUMBER)}, "a column twice"),
    ({"rows": {**MAP_ROWS, "patient_timeout_s": 601}}, "message_timeout_s"),
]  # fmt: skip


@pytest.mark.parametrize(("outputs", "why"), WRONG, ids=[why for _, why in WRONG])
def test_outputs_that_contradict_themselves_are_refused(outputs: dict[str, Any], why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        map_manifest(**outputs)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "evaluation"}, "given none"),
        ({"interface": "station"}, "no program runs"),
        ({"resources": {"memory_mib": 64, "cpus": 1.0, "gpu": "optional"}}, "no GPU"),
    ],
)
def test_a_map_train_is_an_analysis_of_rows_and_no_other_train_is(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        map_manifest(changes)


def test_lines_and_columns_of_a_table_are_told() -> None:
    manifest = map_manifest()
    shares, by_sex, ends = manifest.outputs.aggregates
    assert manifest.aggregate_lines(shares) == ("0 to 0.25", "0.25 to 0.5", "0.5 to 1", "missing")
    assert manifest.aggregate_columns(shares) == ("patients",)
    assert manifest.aggregate_columns(by_sex) == ("F", "M", "missing")
    assert manifest.aggregate_lines(ends)[:3] == ("answered", "NO_LUNG", "crash")


@pytest.mark.parametrize(
    "answer",
    [
        None, [], "row", 1,
        {}, {"lung_share": 0.5},
        row() | {"name": "J. Jansen"},
        row(share=1.5), row(share=-0.1), row(share=float("nan")), row(share=float("inf")),
        row(nodules=10**1000), row(nodules=-1), row(nodules=1.0), row(nodules=True),  # type: ignore[arg-type]
        row(share="0.5"), row(sex="X"), row(sex=["F"]), row(sex=1),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_an_answer_outside_the_schema_is_no_row(answer: object) -> None:
    schema = map_manifest().outputs.rows
    assert schema is not None
    assert schema.read(answer) is None


def test_what_may_be_missing_may_be_left_out_or_null() -> None:
    schema = map_manifest().outputs.rows
    assert schema is not None
    empty = {"lung_share": None, "nodules": 3, "sex": None}
    assert schema.read({"nodules": 3}) == empty == schema.read(empty)


def train(manifest: TrainManifest) -> Train:
    return Train(manifest, "sha256:" + "1" * 64, ("sha256:" + "2" * 64,), ())


def test_a_review_says_what_leaves_of_the_rows_and_how_many_bits_at_most() -> None:
    manifest = map_manifest()
    rules = policy(
        "analysis", metrics=[], tables=["lung_shares", "ends"], count_rounding=5, trust_statement=None
    )
    review = review_policy(
        rules, b"", "sha256:" + "3" * 64, train=train(manifest), weights=None, previous=None
    )
    text = "\n".join(line for section in review.sections for line in section.lines)
    assert "Of each patient one row, which stays: lung_share (float), nodules (int), sex (category)." in text
    assert (
        "patients counted by the station, lung_shares: per lung_share (0 to 0.25; 0.25 to 0.5; 0.5 to 1; missing)"
        in text
    )
    assert "multiples of 5" in text
    assert "more than 10%" in text
    assert "does not depend on reading the train's code" in text
    assert any("nodules_by_sex" in point for point in review.attention), (
        "declared, and withheld by the policy"
    )
    assert "counted by the station" in "\n".join(
        line for s in review_train(train(manifest)).sections for line in s.lines
    )


def test_the_board_reads_of_whom_tables_count_where_rows_are_to_be_complete() -> None:
    for whole in (False, True):
        manifest = map_manifest(rows={**MAP_ROWS, "complete": whole})
        lines = [line for section in review_train(train(manifest)).sections for line in section.lines]
        assert (
            any(line.startswith("Patients who lack any of these stand in no table") for line in lines)
            is whole
        )


def test_bits_are_those_of_the_cells_that_may_leave() -> None:
    manifest = map_manifest()

    def bits(**rules: Any) -> dict[str, float]:
        found = capacity(policy("analysis", metrics=[], trust_statement=None, **rules), manifest)
        return {part.what: part.bits for part in found.parts}

    fine, coarse = bits(tables=["lung_shares"]), bits(tables=["lung_shares"], count_rounding=100)
    # Fewer than four counts of up to a million: together they are no more than the patients.
    assert 4 * 18.7 < fine["patients per bin lung_shares"] < 4 * 18.8
    assert coarse["patients per bin lung_shares"] < 4 * 14
    assert "patients per bin ends" not in fine
    assert "trusted not to code data" in trust_in_words(policy("analysis", metrics=[], trust_statement=None))


def test_the_same_edges_again_and_other_edges_of_another_split_are_fine() -> None:
    again = {**SHARES, "key": "by_sex", "by": "sex"}
    elsewhere = {**SHARES, "key": "validated", "edges": [0.1], "split": "validation"}
    assert len(map_manifest(aggregates=[SHARES, again, elsewhere]).outputs.aggregates) == 3


def test_of_several_tables_the_board_is_told_what_is_left_to_read_in_the_code() -> None:
    def said(*tables: str) -> str:
        return trust_in_words(
            policy("analysis", metrics=[], tables=tables, trust_statement=None), map_manifest()
        )

    assert "difference of two tables" not in said("lung_shares", "ends")
    assert "low digits" not in said("lung_shares", "ends")
    assert "no two columns of its rows may hold the same finding" in said("lung_shares", "nodules_by_sex")


SUMMED: dict[str, Any] = {"split": Split.TRAINING, "measure": "sum", "decimals": 2, "minimum_cell_count": 5}
OF_TRAIN = {"key": "lung_sums", "column": "lung_share", **SUMMED}
OF_CLINICAL = {"key": "ages", "column": "age_years", **SUMMED}
DIVIDED_BY_TRAIN = {"key": "ages_by_finding", "column": "age_years", "by": "sex", **SUMMED}


@pytest.mark.parametrize(
    ("item", "depends"), [(OF_TRAIN, True), (DIVIDED_BY_TRAIN, True), (OF_CLINICAL, False)]
)
def test_a_sum_of_what_the_train_writes_always_rests_on_reading_its_code(
    item: dict[str, Any], *, depends: bool
) -> None:
    plain = map_manifest()
    assert plain.outputs.rows is not None
    age = RowColumn(name="age_years", type="float", minimum=0, maximum=120, source="clinical")
    rows = plain.outputs.rows.model_copy(update={"columns": (*plain.outputs.rows.columns, age)})
    outputs = plain.outputs.model_copy(update={"rows": rows, "aggregates": (AggregateOutput(**item),)})
    told = trust_in_words(
        policy("analysis", metrics=[], tables=[item["key"]], trust_statement=None),
        plain.model_copy(update={"outputs": outputs}),
    )
    assert (f"in a sum ({item['key']}) does depend on it" in told) is depends
    assert "counts does not depend on reading the train's code, but for what a program" in told
