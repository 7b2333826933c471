"""Makes a station's mirror report: its own values beside what may be told of all.

A pure function of the run's rounds. It takes one station's name and reads that station's values and tables; of the others it takes
nothing but `pool`, `spread`, and pooled tables that are told to everybody of the run (`federation.told_tables`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.federation.orders import AcceptedOrder, RunProgress
from orchestrator.results.pooling import Pooled, spread
from orchestrator.results.shown import (
    STAGES,
    examples_of,
    metrics_of,
    pooled_rounds,
    table_codes,
    values_of,
)
from policies.aggregates import AggregateOutput
from policies.manifest import TrainManifest
from policies.mirror_report import MirrorCells, MirrorPoint, MirrorReport, MirrorTable, MirrorValue
from policies.outputs import MetricOutput
from policies.policy import Policy
from policies.rows import HIDDEN
from policies.withheld import DIFFERENCE, PARTLY

Entry = Mapping[str, Any]


def mirror_report(
    accepted: AcceptedOrder,
    progress: RunProgress,
    rounds: Sequence[Entry],
    station: str,
    policy: Policy | None = None,
) -> MirrorReport:
    """Return the report of a run that is over.

    Args:
        accepted: the order.
        progress: how it ended.
        rounds: the finished rounds as the run worker wrote them.
        station: whose report it is; the order names it.
        policy: the order's, where it is at hand.
    """
    order, manifest = accepted.order, accepted.manifest
    pooled = pooled_rounds(accepted, rounds)
    values = [
        found
        for which, metric in metrics_of(accepted).items()
        if (found := _value(metric, which, rounds, pooled, station)) is not None
    ]
    return MirrorReport(
        schema_version=1,
        order_digest=accepted.order_digest,
        station=station,
        train=f"{manifest.name} {manifest.version}",
        train_title=manifest.title,
        policy_id=order.policy_id,
        policy_version=order.policy_version,
        policy_title=policy.title if policy else None,
        summary_nl=policy.summary.nl if policy else None,
        summary_en=policy.summary.en if policy else None,
        state=progress.state.value,  # type: ignore[arg-type]  # the caller saw that it is over
        rounds=len(rounds),
        rounds_ordered=order.rounds,
        rounds_of_station=sum(station in entry.get("took_part", ()) for entry in rounds),
        values=values,
        tables=_tables(accepted, rounds, station),
    )


def _value(
    metric: MetricOutput,
    which: tuple[str, str],
    rounds: Sequence[Entry],
    pooled: Sequence[Mapping[str, Mapping[str, Pooled]]],
    station: str,
) -> MirrorValue | None:
    stage, key = which
    course: list[MirrorPoint] = []
    last: tuple[Entry, Pooled] | None = None
    for entry, told in zip(rounds, pooled, strict=True):
        found = told.get(stage, {}).get(key)
        if found is None or station not in (entry.get(stage) or {}):
            # It did not answer then: of a round without it a station learns nothing here.
            continue
        own = values_of(entry, stage, key).get(station)
        course.append(MirrorPoint(round=int(entry["round"]), own=own, pooled=found.value))
        # The last round that is told stands; one that is not told because others answered than before does not displace it.
        if last is None or found.code != DIFFERENCE:
            last = (entry, found)
    if last is None:
        return None
    entry, found = last
    values = values_of(entry, stage, key)
    around = spread(values, examples_of(entry, stage), station, metric) if found.value is not None else None
    return MirrorValue(
        stage=stage,  # type: ignore[arg-type]  # a metric's stage
        metric=key,
        decimals=metric.decimals,
        round=int(entry["round"]),
        own=values.get(station),
        pooled=found.value,
        hospitals=found.stations,
        code=found.code,
        others=around.others if around else 0,
        lowest=around.lowest if around else None,
        median=around.median if around else None,
        highest=around.highest if around else None,
        course=course,
    )


def _tables(accepted: AcceptedOrder, rounds: Sequence[Entry], station: str) -> list[MirrorTable]:
    """Return each table that the station released, from the last round of it that is told; what is hidden stays hidden."""
    codes = table_codes(accepted, rounds)
    found: list[MirrorTable] = []
    for item in accepted.manifest.outputs.aggregates:
        for stage in STAGES:
            last: tuple[Entry, str] | None = None
            for entry, told in zip(rounds, codes, strict=True):
                if item.key not in _released(entry, stage).get(station, {}):
                    continue
                # Not pooled at all where another that released tables withheld this one.
                code = told.get(stage, {}).get(item.key, PARTLY)
                if last is None or code != DIFFERENCE:
                    last = (entry, code)
            if last is not None:
                found.append(_table(item, accepted.manifest, stage, last, station))
    return found


def _table(
    item: AggregateOutput, manifest: TrainManifest, stage: str, last: tuple[Entry, str], station: str
) -> MirrorTable:
    entry, code = last
    pooled = ((entry.get("pooled_tables") or {}).get(stage) or {}).get(item.key)
    return MirrorTable(
        stage=stage,  # type: ignore[arg-type]  # one of the stages
        table=item.key,
        measure=item.measure,
        column=item.column,
        by=item.by,
        round=int(entry["round"]),
        lines=list(manifest.aggregate_lines(item)),
        columns=list(manifest.aggregate_columns(item)),
        own=_cells(item, _released(entry, stage)[station][item.key]),
        pooled=_cells(item, pooled["table"]) if pooled is not None and not code else None,
        hospitals=sum(item.key in tables for tables in _released(entry, stage).values()),
        code=code,
    )


def _released(entry: Entry, stage: str) -> Mapping[str, Mapping[str, Any]]:
    return (entry.get("tables") or {}).get(stage) or {}


def _cells(item: AggregateOutput, table: Sequence[Sequence[float]]) -> MirrorCells:
    """Return a table's cells, None where one is hidden; a sum whose patients are hidden has neither sum."""
    if item.measure == "quantiles":
        return [list(line) for line in table]
    if item.measure == "sum":
        return [[None] * len(line) if line[0] == HIDDEN else list(line) for line in table]
    return [[None if cell == HIDDEN else cell for cell in line] for line in table]
