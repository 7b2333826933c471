"""Which pooled tables may be told where no single hospital's results are: decided once, as the round is written down.

Whoever is told a pooled table may be at one of its hospitals and takes its own out of it. What is hidden at a hospital is hidden in the
pool, so what is left never tells a small cell; the rules here keep what is left from being one hospital's table.

1. It is of three hospitals or more (`policies.withheld.MINIMUM_POOLED`).
2. What is left for any of them does not determine another's table: not all of it is zero; of sums, the others' patients do not all have
   one value; quantiles span two of the declared bins or more.
3. Under one policy a table is told over the same hospitals, or over others entirely, whichever orders ask: two sets that differ by one
   tell that one's table exactly, since the question is the same and so are the patients.

The third looks at every order of the policy that lies here, under a lock, so that of two that end at once the second sees the first.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from orchestrator.federation.orders import FolderQueue, RunFolder
from orchestrator.federation.run_documents import AcceptedOrder
from policies.aggregates import AggregateOutput, ends_of
from policies.errors import StateError
from policies.files import exclusive_lock
from policies.manifest import TrainManifest
from policies.rows import HIDDEN
from policies.withheld import DIFFERENCE, MINIMUM_POOLED, TELLS_ONE, TOO_FEW

Entry = dict[str, Any]
Table = Sequence[Sequence[float]]
Which = tuple[str, str]
"""A stage and the key of a table."""

_LOCK: Final = ".told.lock"
_PROTECTION: Final = 0.01
"""No mean of another hospital can be worked out to within this share of it."""


def one_at_a_time(runs: Path) -> AbstractContextManager[None]:
    """Hold what is told still: no other order's round is written down meanwhile.

    Raises:
        StorageError: the lock cannot be taken.
    """
    return exclusive_lock(runs / _LOCK)


def note_untold(entry: Entry, accepted: AcceptedOrder, runs: Path) -> None:
    """Write into a round which of its pooled tables are not told, and why; call it under `one_at_a_time`, until the round is durable."""
    pooled = _pooled(entry)
    told = _told_before(accepted, runs) if pooled else {}
    untold: dict[str, dict[str, str]] = {}
    for (stage, key), names in pooled.items():
        code = code_of(entry, stage, key, accepted.manifest)
        if not code and any(names != each and names & each for each in told.get((stage, key), ())):
            code = DIFFERENCE
        if code:
            untold.setdefault(stage, {})[key] = code
    entry["untold_tables"] = untold


def code_of(entry: Mapping[str, Any], stage: str, key: str, manifest: TrainManifest) -> str:
    """Return why a round's pooled table is not told by itself; empty where it may be."""
    tables = (entry.get("tables") or {}).get(stage) or {}
    found = {name: each[key] for name, each in tables.items() if key in each}
    if len(found) < MINIMUM_POOLED:
        return TOO_FEW
    item = next((each for each in manifest.outputs.aggregates if each.key == key), None)
    return TELLS_ONE if item is not None and _tells_one(item, manifest, found) else ""


def _tells_one(item: AggregateOutput, manifest: TrainManifest, tables: Mapping[str, Table]) -> bool:
    """Whether the pool, without the table of any one of its hospitals, determines another's."""
    if item.measure == "quantiles":
        ends = ends_of(item, manifest.outputs.rows)
        lines = zip(*tables.values(), strict=True)
        return any(_bins(ends, [*line]) < 2 for line in lines)
    return any(
        _determined(item, [table for other, table in tables.items() if other != own]) for own in tables
    )


def _bins(ends: Sequence[float], parts: Sequence[Sequence[float]]) -> int:
    """How many of the declared bins lie between the bounds of a quantile."""
    return ends.index(max(high for _, high in parts)) - ends.index(min(low for low, _ in parts))


def _determined(item: AggregateOutput, others: Sequence[Table]) -> bool:
    if not any(cell for table in others for line in table for cell in line):
        return True
    if item.measure != "sum":
        return False
    return any(_one_value(item, line) for line in zip(*others, strict=True))


def _one_value(item: AggregateOutput, parts: Sequence[Sequence[float]]) -> bool:
    """Whether the patients of a line of sums all have nearly the same: whatever hospital they are of, its mean is known."""
    if any(part[0] == HIDDEN for part in parts):
        return False
    patients, total, squares = (sum(each) for each in zip(*parts, strict=True))
    if patients <= 0:
        return False
    mean = total / patients
    away = max(0.0, squares / patients - mean * mean)
    return bool(away <= max(_PROTECTION * abs(mean), 10.0 ** -(item.decimals or 0)) ** 2)


def _pooled(entry: Mapping[str, Any]) -> dict[Which, frozenset[str]]:
    """Which tables of a round are pooled, and over whom."""
    return {
        (stage, key): frozenset(table["stations"])
        for stage, found in (entry.get("pooled_tables") or {}).items()
        for key, table in found.items()
    }


def _told_before(accepted: AcceptedOrder, runs: Path) -> dict[Which, set[frozenset[str]]]:
    """Over whom each table was told by the orders of the same policy, this one's earlier rounds among them."""
    found: dict[Which, set[frozenset[str]]] = {}
    for folder in FolderQueue(runs).folders():
        if not _is_of(folder, accepted.order.policy_id):
            continue
        for entry in folder.read_rounds():
            untold = entry.get("untold_tables") or {}
            for which, names in _pooled(entry).items():
                # Rounds of earlier versions say nothing: what was enough for them was told.
                if len(names) >= MINIMUM_POOLED and which[1] not in untold.get(which[0], {}):
                    found.setdefault(which, set()).add(names)
    return found


def _is_of(folder: RunFolder, policy_id: str) -> bool:
    try:
        return folder.read_order().order.policy_id == policy_id
    except StateError:
        # Nobody is shown what a damaged order's rounds hold.
        return False
