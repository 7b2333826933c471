"""A run's news for a person: each round with who took part, what they released, and what it took.

Pure: takes what the orchestrator sends and gives text. The orchestrator's form may grow; what is not there is not shown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from policies.refusal_texts import CATALOGUE
from policies.refusals import RefusalCode
from policies.wire.registry_client import Progress, RunStatus
from policies.withheld import WORDS

NOTHING: Final = "-"
"""Stands where a station released nothing, or a rule left the value out."""

MAX_COLUMNS: Final = 8
"""Stations for which a table has columns."""

_STAGES: Final = ("train", "evaluate", "analyse")


@dataclass(frozen=True, slots=True)
class RoundNews:
    """One finished round.

    Attributes:
        number: from 1.
        took_part: stations whose releases count.
        missing: stations that are not in it, with the code.
        of: how many stations the order names; 0 where it does not say.
        excluded: stations that are out of the run for good, with the code.
        metrics: by stage and name, what each station released.
        means: by stage and name.
        released_by: by stage and name, how many stations released what is shown pooled only.
        withheld: by stage and name, why a pooled value is not told.
        tables: by stage and name, the stations that released one.
        compute_s: of the slowest station, over all stages; in the policy's quantum. None where it is not shown.
        overhead_s: the rest of the round's time; None where it is not shown.
    """

    number: int
    took_part: tuple[str, ...]
    missing: Mapping[str, str]
    of: int
    excluded: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]]
    means: Mapping[str, float]
    released_by: Mapping[str, int]
    withheld: Mapping[str, str]
    tables: Mapping[str, tuple[str, ...]]
    compute_s: float | None
    overhead_s: float | None


def round_news(entry: Mapping[str, Any]) -> RoundNews:
    """Read one round as the orchestrator sends it."""
    metrics: dict[str, dict[str, float]] = {}
    tables: dict[str, list[str]] = {}
    for stage in _STAGES:
        for station, values in _sorted(entry, stage):
            for name, value in _sorted({"found": values}, "found"):
                metrics.setdefault(f"{stage} {name}", {})[station] = float(value)
        for station, found in _sorted(_mapping(entry, "tables"), stage):
            for name in sorted(found):
                tables.setdefault(f"{stage} {name}", []).append(station)
    compute = _mapping(entry, "compute_s")
    slowest = [max(map(float, _mapping(compute, stage).values()), default=0.0) for stage in compute]
    return RoundNews(
        number=int(entry.get("round", 0)),
        took_part=tuple(map(str, entry.get("took_part", ()))),
        missing={name: str(code) for name, code in _sorted(entry, "missing")},
        of=int(entry.get("of") or 0),
        excluded={name: str(code) for name, code in _sorted(entry, "excluded")},
        metrics=metrics,
        means={name: float(value) for name, value in _by_stage(entry, "means")},
        released_by={
            name: int(value)
            for key in ("reported", "tables_reported")
            for name, value in _by_stage(entry, key)
        },
        withheld={name: str(code) for name, code in _by_stage(entry, "withheld")},
        tables={name: tuple(stations) for name, stations in tables.items()},
        compute_s=sum(slowest) if slowest else None,
        overhead_s=float(entry["overhead_s"]) if "overhead_s" in entry else None,
    )


def round_lines(news: RoundNews) -> Iterator[str]:
    """Yield a round as lines, each of which says which round it is."""
    for name, values in news.metrics.items():
        each = ", ".join(_released(station, values) for station in dict.fromkeys((*news.took_part, *values)))
        mean = f"mean {news.means[name]:.4g} " if name in news.means else ""
        yield f"round {news.number}: {name} {mean}({each})"
    for name, stations in news.tables.items():
        yield f"round {news.number}: {name}, a table of {', '.join(stations)}"
    for name in _pooled_only(news):
        yield f"round {news.number}: {name} {_pooled(news, name)}"
    missing = ", ".join(f"{station} {code}" for station, code in news.missing.items())
    yield (
        f"round {news.number}: {_how_many(news)} took part"
        + (f", not {missing}" if missing else "")
        + (f", excluded for good {', '.join(news.excluded)}" if news.excluded else "")
        + _times(news)
    )


def _times(news: RoundNews) -> str:
    each = {"compute": news.compute_s, "overhead": news.overhead_s}
    told = ", ".join(f"{name} {value:.1f} s" for name, value in each.items() if value is not None)
    return told and f"; {told}"


def _pooled_only(news: RoundNews) -> list[str]:
    """Return what was released and is not shown by station."""
    return [name for name in news.released_by if name not in news.metrics and name not in news.tables]


def _pooled(news: RoundNews, name: str) -> str:
    stations = news.released_by[name]
    if name in news.withheld:
        code = news.withheld[name]
        return f"of {_stations_of(stations)}, not told: {WORDS.get(code, code)} ({code})"
    value = f"{news.means[name]:.4g} " if name in news.means else ""
    return f"{value}pooled over {_stations_of(stations)}"


def _stations_of(count: int) -> str:
    return "1 station" if count == 1 else f"{count} stations"


def _how_many(news: RoundNews) -> str:
    return f"{len(news.took_part)} of {news.of or len({*news.took_part, *news.missing})}"


def table_columns(rounds: Iterable[RoundNews]) -> tuple[str, ...]:
    """Return the columns of `table_rows` over these rounds."""
    rounds = tuple(rounds)
    return (
        "round",
        "took part",
        "released",
        "mean",
        *(_columns(rounds) or ("not",)),
        "compute s",
        "overhead s",
    )


def table_rows(rounds: Sequence[RoundNews]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table: one per round and metric, a column per station where few enough are shown by name."""
    stations = _columns(rounds)
    for news in rounds:
        times = tuple("" if value is None else f"{value:.1f}" for value in (news.compute_s, news.overhead_s))
        names = [*news.metrics, *(f"{name} (table)" for name in news.tables), *_pooled_only(news)] or [
            NOTHING
        ]
        for name in names:
            first = name == names[0]
            mean = f"{news.means[name]:.4g}" if name in news.means else news.withheld.get(name, "")
            cells = [_cell(news, name, station) for station in stations]
            if not stations:
                cells = [
                    ", ".join(f"{station} {code}" for station, code in news.missing.items()) if first else ""
                ]
            begun = (str(news.number), _how_many(news)) if first else ("", "")
            yield (*begun, name, mean, *cells, *(times if first else ("", "")))


def progress_line(progress: Progress) -> str:
    """Return where a run stands, in one line."""
    parts = [progress.state]
    if not progress.is_over and progress.round:
        parts.append(f"round {progress.round} of {progress.rounds or '?'}")
    if progress.stage:
        parts.append(progress.stage)
    if progress.position and not progress.is_over:
        parts.append(f"number {progress.position} in the queue")
    if progress.full and not progress.is_over:
        parts.append(f"busy with other runs: {', '.join(progress.full)}")
    if progress.waiting and not progress.is_over:
        parts.append(f"waits ({progress.waiting})")
    return ", ".join(parts)


def taking_part(progress: Progress) -> str:
    """Return who takes part and who does not, in one line; empty while nobody has said."""
    parts = [f"taking part: {', '.join(progress.accepted)}"] if progress.accepted else []
    if progress.missing:
        parts.append(f"not: {_who_is_missing(progress)}")
    if progress.excluded:
        parts.append(
            "excluded for good: "
            + ", ".join(f"{name} {code}" for name, code in sorted(progress.excluded.items()))
        )
    if progress.reviewing and not progress.is_over:
        parts.append(f"waits for a person at {_who_is_reviewing(progress)}")
    return "; ".join(parts)


def _who_is_reviewing(progress: Progress) -> str:
    """Return each station where a person looks at what is to leave, with the moment until which it is waited for."""
    return ", ".join(f"{name} (until {until})" for name, until in sorted(progress.reviewing.items()))


def _who_is_missing(progress: Progress) -> str:
    """Return each station with its code, and what its operator finds the run by."""
    return ", ".join(
        f"{name} {code}"
        + (f" since {since}" if (since := progress.missing_since.get(name)) and not progress.is_over else "")
        + (f" (its operator's {found})" if (found := progress.correlation.get(name)) else "")
        for name, code in sorted(progress.missing.items())
    )


def why(status: RunStatus) -> tuple[str, str, str]:
    """Return code, message and hint of a run that did not finish."""
    progress = status.progress
    code = progress.code or progress.state.upper()
    missing = _who_is_missing(progress)
    hints = [
        f"{name}: {CATALOGUE[RefusalCode(name)].means} {CATALOGUE[RefusalCode(name)].do}"
        for name in sorted({code, *progress.missing.values()})
        if name in RefusalCode.__members__
    ]
    return code, f"the run {progress.state}" + (f"; {missing}" if missing else ""), "\n  ".join(hints)


def _released(station: str, values: Mapping[str, float]) -> str:
    return f"{station} {values[station]:.4g}" if station in values else f"{station} {NOTHING}"


def _cell(news: RoundNews, name: str, station: str) -> str:
    if station in news.missing and station not in news.took_part:
        return news.missing[station]
    if name.removesuffix(" (table)") in news.tables:
        return "yes" if station in news.tables[name.removesuffix(" (table)")] else NOTHING
    value = news.metrics.get(name, {}).get(station)
    return NOTHING if value is None else f"{value:.4g}"


def _columns(rounds: Iterable[RoundNews]) -> tuple[str, ...]:
    """Return the stations that have a column each; none where nothing is shown by station, or they are too many."""
    rounds = tuple(rounds)
    stations = _stations(rounds)
    by_station = any(news.metrics or news.tables for news in rounds)
    return stations if by_station and len(stations) <= MAX_COLUMNS else ()


def _stations(rounds: Iterable[RoundNews]) -> tuple[str, ...]:
    return tuple(sorted({name for news in rounds for name in (*news.took_part, *news.missing)}))


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _by_stage(entry: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    for stage in _STAGES:
        for name, value in _sorted(_mapping(entry, key), stage):
            yield f"{stage} {name}", value


def _sorted(value: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    return sorted((str(name), item) for name, item in _mapping(value, key).items())
