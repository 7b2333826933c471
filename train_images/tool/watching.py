"""A run's news as lines for a person: each round with who took part, what they released, and what it took.

Pure: takes what the orchestrator sends and gives text. The orchestrator's form may grow; what is not there is not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policies.refusal_texts import CATALOGUE
from policies.refusals import RefusalCode
from policies.wire.registry_client import Progress, RunStatus

COLUMNS = ("round", "took part", "released", "mean", "not released", "compute s", "overhead s")
_STAGES = ("train", "evaluate", "analyse")


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One finished round.

    Attributes:
        number: from 1.
        took_part: stations whose releases count.
        metrics: by stage and metric, per station.
        means: by stage and metric.
        missing: stations that are not in it, with the code.
        compute_s: of the slowest station, over all stages; in the policy's quantum.
        overhead_s: the rest of the round's time.
    """

    number: int
    took_part: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, float]]
    means: Mapping[str, float]
    missing: Mapping[str, str]
    compute_s: float
    overhead_s: float

    def cells(self) -> tuple[str, ...]:
        """Return the row of a table, in the order of `COLUMNS`."""
        per_station = (
            f"{name} " + ", ".join(f"{station} {value:.4g}" for station, value in values.items())
            for name, values in self.metrics.items()
        )
        return (
            str(self.number),
            ", ".join(self.took_part),
            "\n".join(per_station),
            "\n".join(f"{name} {value:.4g}" for name, value in self.means.items()),
            ", ".join(f"{station} {code}" for station, code in self.missing.items()),
            f"{self.compute_s:.1f}",
            f"{self.overhead_s:.1f}",
        )

    def line(self) -> str:
        """Return the row as one line."""
        _, took_part, released, means, missing, compute, overhead = self.cells()
        parts = [f"round {self.number}: {took_part or 'nobody took part'}"]
        parts += [f"mean {means.replace(chr(10), ', ')}"] if means else []
        parts += [released.replace("\n", "; ")] if released else []
        parts += [f"not released: {missing}"] if missing else []
        return " | ".join([*parts, f"compute {compute} s, overhead {overhead} s"])


def round_row(entry: Mapping[str, Any]) -> RoundRow:
    """Read one round as the orchestrator sends it."""
    metrics: dict[str, dict[str, float]] = {}
    for stage in _STAGES:
        for station, values in sorted(_mapping(entry, stage).items()):
            for name, value in sorted(_mapping({"found": values}, "found").items()):
                metrics.setdefault(f"{stage} {name}", {})[str(station)] = float(value)
    means = {
        f"{stage} {name}": float(value)
        for stage in _STAGES
        for name, value in sorted(_mapping(_mapping(entry, "means"), stage).items())
    }
    compute = _mapping(entry, "compute_s")
    slowest = (max(map(float, _mapping(compute, stage).values()), default=0.0) for stage in compute)
    return RoundRow(
        number=int(entry.get("round", 0)),
        took_part=tuple(map(str, entry.get("took_part", ()))),
        metrics=metrics,
        means=means,
        missing={str(name): str(code) for name, code in sorted(_mapping(entry, "missing").items())},
        compute_s=sum(slowest),
        overhead_s=float(entry.get("overhead_s", 0.0)),
    )


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def progress_line(progress: Progress) -> str:
    """Return where a run stands, in one line."""
    where = f"round {progress.round} of {progress.rounds}" if progress.rounds else f"round {progress.round}"
    parts = [progress.state]
    if not progress.is_over and progress.round:
        parts.append(where)
    if progress.stage:
        parts.append(progress.stage)
    if progress.accepted:
        parts.append(f"taking part: {', '.join(progress.accepted)}")
    if progress.missing:
        parts.append("not: " + ", ".join(f"{name} {code}" for name, code in sorted(progress.missing.items())))
    return " | ".join(parts)


def why(status: RunStatus) -> tuple[str, str, str]:
    """Return code, message and hint of a run that did not finish."""
    progress = status.progress
    code = progress.code or progress.state.upper()
    missing = ", ".join(f"{name} {reason}" for name, reason in sorted(progress.missing.items()))
    hints = [
        f"{name}: {CATALOGUE[RefusalCode(name)].means} {CATALOGUE[RefusalCode(name)].do}"
        for name in sorted({code, *progress.missing.values()})
        if name in RefusalCode.__members__
    ]
    return code, f"the run {progress.state}" + (f"; {missing}" if missing else ""), "\n  ".join(hints)
