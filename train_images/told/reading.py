"""Reads a fetched result's tables: what each station released where that is told, and what is told of all together.

The files came from elsewhere: their digests are held to the provenance statement beside them, and every table to the shape that the
document itself declares. Counts that a station hid are None here.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from policies.documents import digest_of
from policies.errors import NotFoundError, TrustError, WireError
from policies.result_files import METRICS, PROVENANCE, most_bytes
from train_images.tool.results import subjects_of

Line = tuple[float | None, ...]
Table = tuple[Line, ...]

_STAGES: Final = ("evaluate", "analyse")
_LARGEST: Final = {"count": 2.0**53, "sum": 1e100, "quantiles": 1e100}
"""Beyond this no cell of such a table is a result: arithmetic on it would overflow."""


@dataclass(frozen=True, slots=True)
class ToldTable:
    """One aggregate of a run.

    Attributes:
        key: of the manifest's aggregate.
        measure: count, sum or quantiles.
        column: what is counted, summed or ordered.
        by: the second column; None where there is none.
        lines, columns: what the table's lines and columns are.
        ends: of a number's bins, one more than there are; empty for categories and sums.
        stations: each station's own table, where single ones are told; None in it is hidden.
        pooled: of all stations together; None where it is not told.
        of: how many stations the pooled one is of.
    """

    key: str
    measure: str
    column: str
    by: str | None
    lines: tuple[str, ...]
    columns: tuple[str, ...]
    ends: tuple[float, ...]
    stations: Mapping[str, Table] = field(default_factory=dict)
    pooled: Table | None = None
    of: int = 0


@dataclass(frozen=True, slots=True)
class ToldResult:
    """The tables of a run's last round.

    Attributes:
        train: name and version.
        tables: in the order of the manifest.
        rounding: what counts are rounded to; 1 where they are exact.
        noise: whether each number has noise in it.
    """

    train: str
    tables: tuple[ToldTable, ...]
    rounding: int
    noise: bool

    @property
    def exact(self) -> bool:
        """Whether counts are what was counted."""
        return self.rounding == 1 and not self.noise


def read_told(folder: Path) -> ToldResult:
    """Read the tables of a result that `pht-train results` fetched.

    Raises:
        NotFoundError: there is no such result here, or it has no tables.
        TrustError: the file is not the one that the provenance statement names.
        WireError: the document is none of a result's.
    """
    path = folder / METRICS
    if not path.is_file() or not (folder / PROVENANCE).is_file():
        raise NotFoundError(
            f"{folder}: no result lies here", hint="Fetch one first: pht-train results DIGEST OUT."
        )
    if path.stat().st_size > most_bytes(METRICS):
        raise TrustError(f"{METRICS} is larger than a result's may be")
    data = path.read_bytes()
    if subjects_of(folder / PROVENANCE).get(METRICS) != digest_of(data):
        raise TrustError(f"{METRICS} is not the file that {PROVENANCE} names", hint="Fetch the result again.")
    try:
        return _read(json.loads(data))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise WireError(f"{METRICS} is no document of a result") from error


def _read(document: dict[str, Any]) -> ToldResult:
    counts = document.get("counts") or {}
    noise = bool(counts.get("noise", False))
    rounds = document["rounds"]
    described = document["tables"]
    if not rounds or not described:
        raise NotFoundError("the result has no tables", hint="Only evaluations and analyses have some.")
    last = rounds[-1]
    train = document["train"]
    return ToldResult(
        f"{train['name']} {train['version']}",
        tuple(_table(key, each, last, noise=noise) for key, each in described.items()),
        int(counts.get("rounding", 1)),
        noise,
    )


def _table(key: str, described: dict[str, Any], entry: dict[str, Any], *, noise: bool) -> ToldTable:
    lines, columns = tuple(map(str, described["lines"])), tuple(map(str, described["columns"]))
    ends = tuple(float(end) for end in described.get("ends") or ())
    if not all(math.isfinite(end) for end in ends) or any(low >= high for low, high in pairwise(ends)):
        raise ValueError("ends")
    told = ToldTable(
        key, str(described["measure"]), str(described["column"]), described["by"], lines, columns, ends
    )
    hides = None if noise else float(described["hidden"])
    if told.measure not in _LARGEST:
        raise ValueError("measure")
    probabilities = lines if told.measure == "quantiles" and told.by is None else ()
    if not all(0 <= Fraction(each) <= 1 for each in probabilities):
        raise ValueError("probabilities")
    stations: dict[str, Table] = {}
    pooled: Table | None = None
    of = 0
    for stage in _STAGES:
        released = (entry.get("tables") or {}).get(stage) or {}
        for name, tables in released.items():
            if key in tables:
                stations[str(name)] = _cells(tables[key], told, hides)
        if found := ((entry.get("pooled_tables") or {}).get(stage) or {}).get(key):
            pooled = _cells(found["table"], told, hides)
            of = int(found["of"]) if "of" in found else len(found["stations"])
    return ToldTable(
        told.key,
        told.measure,
        told.column,
        told.by,
        lines,
        columns,
        ends,
        dict(sorted(stations.items())),
        pooled,
        of,
    )


def _cells(table: Sequence[Sequence[Any]], told: ToldTable, hides: float | None) -> Table:
    """Return a table with what is hidden as None.

    Raises:
        ValueError: it has another shape than declared, or a cell that is no number.
    """
    found: list[Line] = []
    largest = _LARGEST[told.measure]
    for line in table:
        if len(line) != len(told.columns) or not all(_is_number(cell, largest) for cell in line):
            raise ValueError("shape")
        if told.measure == "sum" and line[0] == hides:
            found.append((None,) * len(line))
        elif told.measure == "count":
            found.append(tuple(None if cell == hides else max(cell, 0) for cell in line))
        else:
            found.append(tuple(line))
    if len(found) != len(told.lines):
        raise ValueError("shape")
    return tuple(found)


def _is_number(cell: object, largest: float) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and -largest <= cell <= largest
