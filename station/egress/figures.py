"""The guard's rules on numbers: metrics of a reply's head, and the tables that the station makes of rows.

Pure. The metrics are untrusted JSON, or anything at all: whatever they are, the answer is figures or reasons. Reasons name
declared keys only; a key that the train made up is named where it has the form of one, for the hospital's own screen.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from policies.order import Stage
from policies.outputs import MetricOutput
from policies.refusals import Reason, RefusalCode
from station.egress.analyses.counting import count_tables
from station.egress.analyses.exact import ExactTable
from station.egress.analyses.explaining import why_left_out
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.release import Decimal, Suppressed, Table

TENSOR_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,200}")
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHOWN: Final = 5


@dataclass(slots=True)
class Figures:
    """Metrics and tables that passed, what was left out, and what is wrong with the rest."""

    metrics: dict[str, Decimal | int] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    counted: tuple[ExactTable, ...] = ()
    suppressed: list[Suppressed] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    def add(self, counted: "Figures") -> None:
        """Put what the station counted beside what the train stated."""
        self.tables |= counted.tables
        self.counted += counted.counted
        self.suppressed += counted.suppressed


def check_figures(contract: ReleaseContract, counts: CohortCounts, stage: Stage, metrics: object) -> Figures:
    """Hold a reply's metrics to the contract.

    1. They are an object; its keys are declared for this stage.
    2. What the policy does not permit is left out, whatever its value.
    3. Each declared value is there (optional metrics may be absent) and of its type and range.
    4. Metrics on too few patients are left out.
    5. Metrics are rounded to their decimals.
    """
    figures = Figures()
    declared = {metric.key: metric for metric in contract.metrics if metric.stage == stage}
    if not isinstance(metrics, Mapping):
        figures.reasons.append(Reason(RefusalCode.RELEASE_UNPARSEABLE, "metrics must be an object"))
        return figures
    if extra := [key for key in metrics if not isinstance(key, str) or key not in declared]:
        figures.reasons.append(Reason(RefusalCode.RELEASE_METRIC_EXTRA, shown(extra)))
    for metric in declared.values():
        if metric.key not in contract.permitted_metrics:
            figures.suppressed.append(Suppressed(metric.key, RefusalCode.RELEASE_NOT_PERMITTED))
        elif metric.key in metrics:
            _check_metric(figures, contract, counts.of(metric.split), metric, metrics[metric.key])
        elif metric.required:
            figures.reasons.append(Reason(RefusalCode.RELEASE_METRIC_MISSING, metric.key))
    return figures


def shown(names: Iterable[object], form: re.Pattern[str] = _KEY) -> str:
    """Name up to five things for the hospital's screen; what has not the form of a name is only counted."""
    every = list(names)
    good = sorted({name[:64] for name in every if isinstance(name, str) and form.fullmatch(name)})[:_SHOWN]
    rest = len(every) - len(good)
    return ", ".join(good) + (
        f" and {rest} more" if good and rest > 0 else f"{rest} without a proper name" if rest else ""
    )


def _check_metric(
    figures: Figures, contract: ReleaseContract, split: SplitCounts, metric: MetricOutput, value: object
) -> None:
    # Exactly int or float: a bool is an int to Python, and a subclass could answer anything.
    if type(value) is int or (type(value) is float and metric.type == "float" and math.isfinite(value)):
        number = value
    else:
        figures.reasons.append(
            Reason(RefusalCode.RELEASE_METRIC_RANGE, f"{metric.key} is not a {metric.type}")
        )
        return
    if not metric.minimum <= number <= metric.maximum:
        figures.reasons.append(Reason(RefusalCode.RELEASE_METRIC_RANGE, f"{metric.key} is out of its range"))
    elif split.patients < contract.minimum_patients_per_metric:
        figures.suppressed.append(Suppressed(metric.key, RefusalCode.RELEASE_TOO_FEW_PATIENTS))
    elif metric.type == "int":
        figures.metrics[metric.key] = int(number)
    else:
        figures.metrics[metric.key] = _rounded(float(number), metric)


def _rounded(value: float, metric: MetricOutput) -> Decimal:
    # Rounding may step over a bound that has more decimals; the bound is public, so it may stand for the value.
    inside = min(max(round(value, metric.decimals), metric.minimum), metric.maximum)
    return Decimal(inside + 0.0)  # no minus zero: its sign would be a bit of the train's choosing


def count_figures(contract: ReleaseContract, tally: Tally) -> Figures:
    """Make the tables of patients' rows: the station's own counting, so nothing here can be wrong, only too small.

    1. What the policy does not permit is left out.
    2. A table on too few patients is left out.
    3. The others become exact tables, and of those what may be told (`station.egress.analyses.counting`).
    """
    figures = Figures()
    items = []
    for item in contract.aggregates:
        if item.key not in contract.permitted_tables:
            figures.suppressed.append(Suppressed(item.key, RefusalCode.RELEASE_NOT_PERMITTED))
        elif tally.patients(item) < contract.minimum_patients_per_metric:
            figures.suppressed.append(Suppressed(item.key, RefusalCode.RELEASE_TOO_FEW_PATIENTS))
        else:
            items.append(item)
    counted = count_tables(contract, tally, tuple(items))
    figures.tables.update(counted.tables)
    figures.counted = counted.exact
    for item in items:
        if (code := counted.left_out.get(item.key)) is not None:
            minimum = max(contract.minimum_cell_count, item.minimum_cell_count)
            why = why_left_out(item, code, tally, minimum, counted.exact)
            figures.suppressed.append(Suppressed(item.key, code, why))
    return figures
