"""Rounds of analyses for tests of what is told of tables: a manifest with a table of each measure, and what stations released."""

from collections.abc import Mapping, Sequence
from typing import Any

from map_documents import BY_SEX, SHARES, map_manifest
from result_documents import accepted_order

from orchestrator.federation.orders import AcceptedOrder
from orchestrator.federation.strategies.tables import pool_tables, summed_tables

Table = list[list[float]]

TOTAL: dict[str, Any] = {
    "key": "total",
    "column": "nodules",
    "measure": "sum",
    "decimals": 1,
    "split": "training",
}
QUARTILES: dict[str, Any] = {
    "key": "quartiles", "column": "lung_share", "measure": "quantiles", "edges": [0.25, 0.5],
    "probabilities": [0.25, 0.5], "split": "training",
}  # fmt: skip
MANIFEST = map_manifest(aggregates=[SHARES, BY_SEX, TOTAL, QUARTILES])
_ACCEPTED = accepted_order(stages=("analyse",))
FOUR = ("amstel", "berkel", "dommel", "eem")


def order_over(stations: Sequence[str] = FOUR, *, policy: str = "trivial") -> AcceptedOrder:
    """An analysis over stations, whose policy shows no single one's results."""
    order = _ACCEPTED.order.model_copy(update={"policy_id": policy, "stations": tuple(stations)})
    nodes = {name: number for number, name in enumerate(stations, 1)}
    return _ACCEPTED.model_copy(update={"manifest": MANIFEST, "order": order, "nodes": nodes})


def entry_of(tables: Mapping[str, Mapping[str, Table]], number: int = 1) -> dict[str, Any]:
    """A round in which stations released tables, pooled as a round is closed."""
    pooled = pool_tables(tables, MANIFEST, _ACCEPTED.release)  # type: ignore[arg-type]
    return {
        "round": number,
        "tables": {"analyse": {name: dict(each) for name, each in tables.items()}},
        "pooled_tables": {"analyse": {key: each.as_json() for key, each in pooled.items()}},
        "summed_tables": {"analyse": summed_tables(pooled, MANIFEST)},
    }


def shares(number: int) -> Table:
    """One station's counts."""
    return [[10 + number], [20 - number], [5], [0]]


def over(stations: Sequence[str], **tables: Any) -> dict[str, dict[str, Table]]:
    """What stations released: counts, and of other tables the first so many of those given."""
    return {
        name: {"lung_shares": shares(place), **{key: make[place] for key, make in tables.items()}}
        for place, name in enumerate(stations)
    }
