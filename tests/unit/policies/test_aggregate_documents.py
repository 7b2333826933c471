"""Measures of aggregates and whose columns are whose: what contradicts itself is refused when it is written, with a sentence."""

from typing import Any

import pytest
from egress_documents import policy
from map_documents import BY_SEX, ENDS, MAP_ROWS, SHARES, map_manifest

from policies.errors import DocumentError
from policies.manifest import TrainManifest
from policies.refusals import RefusalCode
from policies.rules.cohort_rules import cohort_reasons

SUM: dict[str, Any] = {
    "key": "nodules_sum", "column": "nodules", "measure": "sum", "by": "sex", "decimals": 2, "split": "training",
}  # fmt: skip
QUARTILES: dict[str, Any] = {
    "key": "quartiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
    "probabilities": [0.25, 0.5, 0.75], "split": "training",
}  # fmt: skip
CLINICAL_SEX = {**MAP_ROWS["columns"][2], "source": "clinical"}
ALL_CLINICAL = {"columns": [CLINICAL_SEX]}
PER_SEX = {"key": "sexes", "column": "sex", "split": "training"}
NEEDS = {"modalities": ["CT"], "profile": "thorax-1@1", "clinical_fields": ["sex"]}
STATION: dict[str, Any] = {"interface": "station", "error_codes": [], "data": NEEDS}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({**SUM, "decimals": None}, "decimals for a sum"),
    ({**SHARES, "decimals": 2}, "decimals for a sum"),
    ({**SUM, "edges": [1, 2]}, "a sum has no bins"),
    ({**SUM, "column": "sex", "by": None}, "only numbers are summed"),
    ({**SUM, "probabilities": [0.5]}, "probabilities for quantiles"),
    ({**QUARTILES, "probabilities": []}, "probabilities for quantiles"),
    ({**SHARES, "probabilities": [0.5]}, "probabilities for quantiles"),
    ({**QUARTILES, "probabilities": [0.5, 0.25]}, "do not increase"),
    ({**QUARTILES, "probabilities": [0.5, 0.5]}, "do not increase"),
    ({**QUARTILES, "probabilities": [0.5, 1.0]}, "less than 1"),
    ({**QUARTILES, "edges": []}, "has edges for a number"),
    ({**QUARTILES, "by": "sex"}, "asks for quantiles 'by'"),
    ({**QUARTILES, "column": "sex", "edges": []}, "which has no order"),
    ({**ENDS, "measure": "sum", "decimals": 1}, "counts outcomes"),
    ({**QUARTILES, "column": "outcome", "edges": []}, "counts outcomes"),
    ({**SUM, "by": "lung_share"}, "no other category"),
    ({**SUM, "measure": "mean"}, "measure"),
]


@pytest.mark.parametrize(("item", "why"), WRONG)
def test_a_measure_that_contradicts_itself_is_refused(item: dict[str, Any], why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        map_manifest(aggregates=[item])


def test_what_is_summed_is_small_enough_to_be_exact() -> None:
    huge = {"columns": [{"name": "nodules", "type": "int", "minimum": 0, "maximum": 10**10}]}
    with pytest.raises(DocumentError, match="larger unit"):
        map_manifest(rows=huge, aggregates=[{**SUM, "by": None}])


def test_quantiles_have_the_bins_of_the_counts_beside_them() -> None:
    with pytest.raises(DocumentError, match="other edges"):
        map_manifest(aggregates=[SHARES, {**QUARTILES, "edges": [0.25, 0.51]}])
    assert map_manifest(aggregates=[SHARES, BY_SEX, SUM, QUARTILES])


def test_lines_columns_and_numbers_of_each_measure_are_told() -> None:
    manifest = map_manifest(aggregates=[SHARES, SUM, {**SUM, "key": "total", "by": None}, QUARTILES])
    shares, by_sex, total, quartiles = manifest.outputs.aggregates
    assert manifest.aggregate_lines(by_sex) == ("F", "M", "missing")
    assert manifest.aggregate_lines(total) == ("all",)
    assert manifest.aggregate_columns(total) == ("patients", "sum", "sum_of_squares")
    assert manifest.aggregate_lines(quartiles) == ("0.25", "0.5", "0.75")
    assert manifest.aggregate_columns(quartiles) == ("lower", "upper")

    def numbers(item: Any, rounding: int = 1) -> list[tuple[int, float]]:
        return [(part.cells, part.values) for part in manifest.aggregate_values(item, rounding, patients=100)]

    assert numbers(shares) == [(4, 102.0)]
    assert numbers(shares, 10) == [(4, 12.0)]
    # Nobody or up to a hundred patients of 0 to 99 nodules, in hundredths.
    assert numbers(total) == [(1, 102.0), (1, 9900 * 100 + 2), (1, 99 * 99 * 100 * 100 + 2)]
    # Three bins: six intervals of neighbours.
    assert numbers(quartiles) == [(3, 6.0)]


INTERFACES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"interface": "command"}, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}, "the interface is station"),
    ({}, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}, "the interface is station"),
    ({"interface": "station", "error_codes": []}, {}, "source: clinical"),
    ({**STATION, "kind": "evaluation"}, {"rows": ALL_CLINICAL, "aggregates": [{**PER_SEX, "split": "testing"}]}, "is an analysis"),
    ({**STATION, "error_codes": ["NO_LUNG"]}, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}, "no program runs"),
    ({**STATION, "hyperparameters": {"x": {"type": "bool", "default": True}}}, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}, "no program runs"),
    ({**STATION, "data": {**NEEDS, "clinical_fields": []}}, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}, "does not ask for: sex"),
    ({**STATION, "data": {**NEEDS, "representation": "dicom"}}, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}, "nobody would read"),
    ({}, {"rows": {"columns": [MAP_ROWS["columns"][0], CLINICAL_SEX]}, "aggregates": [SHARES]}, "does not ask for: sex"),
    ({"interface": "flower", "kind": "evaluation"}, {}, "an evaluation train is given none"),
    ({"interface": "flower"}, {"aggregates": [{**SHARES, "split": "testing"}]}, "an analysis train is given none"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "outputs", "why"), INTERFACES)
def test_columns_and_splits_are_those_that_the_interface_has(
    changes: dict[str, Any], outputs: dict[str, Any], why: str
) -> None:
    with pytest.raises(DocumentError, match=why):
        map_manifest(changes, **outputs)


def test_every_interface_but_training_may_have_rows() -> None:
    testing = [{**item, "split": "testing"} for item in (SHARES, ENDS)]
    for changes, outputs in (
        ({"interface": "flower"}, {}),
        ({"interface": "command"}, {}),
        ({"interface": "flower", "kind": "evaluation"}, {"aggregates": testing}),
        (STATION, {"rows": ALL_CLINICAL, "aggregates": [PER_SEX]}),
    ):
        made = map_manifest(changes, **outputs)  # type: ignore[arg-type]
        assert isinstance(made, TrainManifest)
        assert made.outputs.rows is not None
    assert [split.value for split in map_manifest().row_splits] == ["training"]


def test_a_table_that_a_train_fills_in_itself_cannot_be_declared() -> None:
    table = {"key": "t", "stage": "analyse", "columns": ["a"], "rows": 1, "split": "training"}
    with pytest.raises(DocumentError, match=r"outputs\.tables"):
        map_manifest(tables=[table])


FIELDS = ["sex", "age_years", "temperature_c", "smoker", "pneumonia"]
COLUMNS: list[tuple[dict[str, Any], str | None]] = [
    ({"name": "age_years", "type": "int", "minimum": 0, "maximum": 120}, "age_years is shown as ranges"),
    ({"name": "age_years", "type": "category", "categories": ["60-69"]}, None),
    ({"name": "smoker", "type": "int", "minimum": 0, "maximum": 1}, "shown as true and false"),
    ({"name": "sex", "type": "int", "minimum": 0, "maximum": 1}, "shown as codes"),
    ({"name": "temperature_c", "type": "float", "minimum": 30, "maximum": 45}, None),
    ({"name": "pneumonia", "type": "int", "minimum": 0, "maximum": 1}, None),
]


@pytest.mark.parametrize(("column", "why"), COLUMNS)
def test_a_column_that_the_profile_never_shows_so_is_refused_before_a_cohort_is_made(
    column: dict[str, Any], why: str | None
) -> None:
    numbers = column["type"] != "category"
    item = {"key": "c", "column": column["name"], "split": "training", "edges": [1] if numbers else []}
    if column["name"] == "temperature_c":
        item["edges"] = [37, 38]
    if column["name"] in {"smoker", "sex", "pneumonia"}:
        item["edges"] = [0.5]
    manifest = map_manifest(
        {**STATION, "data": {**NEEDS, "clinical_fields": FIELDS}},
        rows={"columns": [{**column, "missing": True, "source": "clinical"}]},
        aggregates=[item],
    )
    rules = policy(
        "analysis",
        data={"modalities": ["CT"], "clinical_fields": FIELDS},
        metrics=[],
        tables=["c"],
        trust_statement=None,
    )
    found = cohort_reasons(rules, manifest)
    assert [reason.code for reason in found] == ([] if why is None else [RefusalCode.DATA_FIELDS])
    assert why is None or why in found[0].detail
