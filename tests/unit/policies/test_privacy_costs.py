"""What a policy with noise asks and costs, from its documents alone; and how wide the noise is."""

import math
from typing import Any

import pytest
from egress_documents import METRIC, manifest, policy

from policies.aggregates import AggregateOutput
from policies.manifest import Interface, TrainManifest
from policies.policy import Policy
from policies.privacy import (
    PolicyCost,
    Query,
    QueryKind,
    Spent,
    cost_of,
    cost_of_policy,
    epsilon,
    queries_of_stage,
    sensitivity_of,
    spread_of,
    unbounded_outputs,
)
from policies.rows import RowSchema
from policies.splits import Split
from station.egress.privacy.mechanisms import COUNTS_SENSITIVITY_SQUARED, SummedGrid, metric_steps

NOISE = {"noise_multiplier": 2.0, "epsilon": 500.0, "delta": 1e-6}
ROWS = {
    "columns": [
        {"name": "age", "type": "int", "minimum": 18, "maximum": 100},
        {"name": "shift", "type": "float", "minimum": -10, "maximum": 4},
        {"name": "sex", "type": "category", "categories": ["F", "M"]},
    ]
}
AGGREGATES = [
    {"key": "ages", "column": "age", "edges": [40, 65], "by": "sex", "split": "training"},
    {"key": "age_sum", "column": "age", "measure": "sum", "by": "sex", "decimals": 0, "split": "training"},
    {"key": "shift_sum", "column": "shift", "measure": "sum", "decimals": 2, "split": "training"},
    {"key": "medians", "column": "age", "measure": "quantiles", "edges": [40, 65], "probabilities": [0.5], "split": "training"},
    {"key": "endings", "column": "outcome", "split": "training"},
]  # fmt: skip
TABLES = ["ages", "age_sum", "shift_sum", "medians", "endings"]


def training(**release: Any) -> tuple[Policy, TrainManifest]:
    later = {**METRIC, "key": "auc", "stage": "evaluate", "split": "validation", "maximum": 1.0}
    optional = {**METRIC, "key": "steps", "required": False}
    rules = {
        "metrics": ["loss", "auc"],
        "tensors": {"clipping_norm": 1.0, "float_buffers": "withhold"},
        "timing_quantum_s": 60.0,
        "differential_privacy": NOISE,
    }
    return policy(**{**rules, **release}), manifest(metrics=[METRIC, optional, later])


def analysis(interface: str = "map", **release: Any) -> tuple[Policy, TrainManifest]:
    rules = {
        "metrics": [],
        "tables": TABLES,
        "timing_quantum_s": 60.0,
        "differential_privacy": NOISE,
        "trust_statement": None,
    }
    train = manifest("analysis", metrics=[], rows=ROWS, aggregates=AGGREGATES)
    changed = train.model_copy(update={"interface": Interface(interface)})
    return policy("analysis", **{**rules, **release}), changed


def cost(documents: tuple[Policy, TrainManifest]) -> PolicyCost:
    found = cost_of_policy(*documents)
    assert found is not None
    return found


def test_the_update_and_every_permitted_metric_are_queries() -> None:
    documents = training()
    assert [str(query) for query in queries_of_stage(*documents, "train")] == ["update", "metric:loss"]
    assert [str(query) for query in queries_of_stage(*documents, "evaluate")] == ["metric:auc"]
    assert queries_of_stage(*documents, "analyse") == ()
    assert [str(query) for query in queries_of_stage(*training(metrics=["steps"]), "train")] == [
        "update",
        "metric:steps",
    ]


def test_a_sum_is_three_queries_and_other_tables_are_one() -> None:
    queries = queries_of_stage(*analysis(), "analyse")
    assert [str(query) for query in queries] == [
        "count:ages",
        "sum-patients:age_sum",
        "sum:age_sum",
        "sum-of-squares:age_sum",
        "sum-patients:shift_sum",
        "sum:shift_sum",
        "sum-of-squares:shift_sum",
        "quantiles:medians",
        "count:endings",
    ]
    assert [str(query) for query in queries_of_stage(*analysis(tables=["medians"]), "analyse")] == [
        "quantiles:medians"
    ]


def test_a_policy_costs_every_release_of_every_round_and_run() -> None:
    found = cost(training())
    one = Spent.of(2.0)
    assert found.per_release == {"train": one.times(2), "evaluate": one}
    assert found.per_round == one.times(3)
    assert found.per_run == one.times(3 * 20)
    # 200 releases, fewer than ten runs of twenty rounds of two: the dearest each.
    assert found.in_total == one.times(2 * 200)
    assert 0 < found.epsilon_per_round < found.epsilon_per_run < found.epsilon_in_total
    assert found.epsilon_in_total == epsilon(one.times(400), 1e-6)


def test_what_asks_nothing_costs_nothing() -> None:
    documents = training(differential_privacy=None)
    assert cost_of_policy(*documents) is None
    privacy = training()[0].release.differential_privacy
    assert privacy is not None
    assert cost_of(privacy, ()) == Spent(0)


@pytest.mark.parametrize("interface", ["map", "station"])
def test_rows_of_one_patient_at_a_time_can_be_made_private(interface: str) -> None:
    assert unbounded_outputs(*analysis(interface)) == ()


@pytest.mark.parametrize("interface", ["flower", "command"])
def test_rows_of_a_program_that_sees_everybody_cannot(interface: str) -> None:
    documents = analysis(interface)
    assert unbounded_outputs(*documents) == tuple(TABLES)
    policy_, train = analysis(interface, tables=["medians"])
    assert unbounded_outputs(policy_, train) == ("medians",)
    assert unbounded_outputs(policy_, _clinical(train)) == ()


def test_a_column_that_the_station_joins_of_the_programs_is_the_programs() -> None:
    documents, told = analysis("flower", tables=["ages"])
    assert told.outputs.rows is not None
    clinical = {"type": "category", "source": "clinical"}
    columns = [
        {"name": "finding", "type": "category", "categories": ["no", "yes"]},
        {"name": "sex", "categories": ["F", "M"], **clinical},
        {"name": "smoker", "categories": ["never", "ever"], **clinical},
        {"name": "stated", "type": "category", "categories": ["yes.F"], "missing": True, "source": "combined", "of": ["finding", "sex"]},
        {"name": "known", "type": "category", "categories": ["ever.F"], "missing": True, "source": "combined", "of": ["smoker", "sex"]},
    ]  # fmt: skip
    outputs = told.outputs.model_copy(update={"rows": RowSchema.model_validate({"columns": columns})})

    def unbounded(column: str) -> tuple[str, ...]:
        item = AggregateOutput.model_validate({"key": "ages", "column": column, "split": Split.TRAINING})
        counted = outputs.model_copy(update={"aggregates": (item,)})
        return unbounded_outputs(documents, told.model_copy(update={"outputs": counted}))

    assert unbounded("stated") == unbounded("finding") == ("ages",)
    assert unbounded("known") == unbounded("sex") == ()


def _clinical(train: TrainManifest) -> TrainManifest:
    rows = train.outputs.rows
    assert rows is not None
    columns = tuple(column.model_copy(update={"source": "clinical"}) for column in rows.columns)
    outputs = train.outputs.model_copy(update={"rows": rows.model_copy(update={"columns": columns})})
    return train.model_copy(update={"outputs": outputs})


def test_how_wide_noise_is() -> None:
    rules, train = analysis()
    privacy = rules.release.differential_privacy
    assert privacy is not None
    spreads = {
        str(query): spread_of(privacy, query, train) for query in queries_of_stage(rules, train, "analyse")
    }
    cells, patients = (pytest.approx(2 * math.sqrt(2)), 1.0), pytest.approx(2 * math.sqrt(2) * 100)
    for key in ("count:ages", "sum-patients:age_sum", "quantiles:medians", "count:endings"):
        assert spreads[key] == cells
    assert spreads["sum:age_sum"] == (patients, 100.0)
    assert spreads["sum:shift_sum"] == (pytest.approx(2 * math.sqrt(2) * 10), 10.0)
    assert spreads["sum-of-squares:shift_sum"] == (pytest.approx(2 * math.sqrt(2) * 100), 100.0)
    metric = Query(QueryKind.METRIC, "auc")
    assert spread_of(privacy, metric, training()[1]) == (2.0, 1.0)
    assert spread_of(privacy, Query(QueryKind.UPDATE), training()[1]) is None
    assert spread_of(privacy, Query(QueryKind.METRIC, "other"), train) is None
    assert spread_of(privacy, Query(QueryKind.SUM, "other"), train) is None


def test_what_is_expected_is_what_stations_do() -> None:
    """The sensitivities on the stations' grids are these, rounded up to whole steps."""
    documents = analysis()
    train = documents[1]
    item = AggregateOutput(**{**AGGREGATES[2], "split": train.outputs.aggregates[2].split})
    for kind, (low, high) in ((QueryKind.SUM, (-10.0, 4.0)), (QueryKind.SUM_OF_SQUARES, (0.0, 100.0))):
        grid = SummedGrid.of(low, high, item.decimals or 0)
        expected = sensitivity_of(Query(kind, item.key), train)
        assert expected is not None
        assert math.sqrt(grid.sensitivity_squared) * float(grid.step) == pytest.approx(expected[0], rel=1e-3)
    counts = sensitivity_of(Query(QueryKind.COUNT, "ages"), train)
    assert counts == (pytest.approx(math.sqrt(COUNTS_SENSITIVITY_SQUARED)), 1.0)
    metric = training()[1].outputs.metrics[0]
    expected = sensitivity_of(Query(QueryKind.METRIC, metric.key), training()[1])
    assert expected is not None
    assert metric_steps(metric) * 10.0**-metric.decimals == pytest.approx(expected[0])
    assert sensitivity_of(Query(QueryKind.UPDATE), train) is None
