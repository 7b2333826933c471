"""What of a run's rounds is shown outside the orchestrator: by station only where the policy says so, else pooled.

The orchestrator itself sees every released value (DESIGN I4: it is trusted not to study them). Invariant: where the policy does not
say `release.station_results`, no value that one station released is in what `shown_rounds` returns; a field of a round that is not
listed here is not in it either.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from orchestrator.federation.orders import AcceptedOrder
from orchestrator.federation.told_tables import code_of
from orchestrator.results.pooling import Pooled, pool
from policies.outputs import MetricOutput
from policies.withheld import DIFFERENCE, MINIMUM_POOLED

Entry = Mapping[str, Any]

STAGES: Final = ("train", "evaluate", "analyse")
_KEPT: Final = (
    "round", "of", "quorum", "took_part", "missing", "excluded", "absent", "left_out", "weights", "aggregate_s", "heads",
)  # fmt: skip
"""Who took part, who did not and why, our own time, heads of stations' chains: nothing that a station released.

Not the round's wall time: it is the slowest station's, and a little more.
"""


class ToldSets:
    """Over which stations a run's values are told, so that no two of them tell a single one's by their difference.

    Whether training changed the weights between two rounds is not relied on: a train may change nothing, and then answers the same
    again. So what was told over some stations is told over those again, or over stations of which none is among them.
    """

    def __init__(self) -> None:
        self._sets: dict[tuple[str, str], set[frozenset[str]]] = {}

    def takes(self, which: tuple[str, str], stations: Iterable[str]) -> bool:
        """Whether a stage's value may be told over these stations; it counts as told then."""
        names = frozenset(stations)
        told = self._sets.setdefault(which, set())
        if any(names != each and names & each for each in told):
            return False
        told.add(names)
        return True


def shown_rounds(accepted: AcceptedOrder, rounds: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the rounds as the requester, the board and the operator see them."""
    if accepted.release.station_results:
        return [dict(entry) for entry in rounds]
    pooled = pooled_rounds(accepted, rounds)
    asked = table_codes(accepted, rounds)
    # What a station counts stays the same over a run: two sums over sets that differ by one tell its count.
    counted = [frozenset(entry.get("num_examples") or {}) for entry in rounds]
    return [
        _shown(entry, means, tables, examples_told=who == counted[0])
        for entry, means, tables, who in zip(rounds, pooled, asked, counted, strict=True)
    ]


def pooled_rounds(accepted: AcceptedOrder, rounds: Sequence[Entry]) -> list[dict[str, dict[str, Pooled]]]:
    """Return for each round, by stage and metric, the pooled value, told or not."""
    metrics = metrics_of(accepted)
    told_of = ToldSets()
    found: list[dict[str, dict[str, Pooled]]] = []
    for entry in rounds:
        here: dict[str, dict[str, Pooled]] = {}
        for (stage, key), metric in metrics.items():
            values = values_of(entry, stage, key)
            if not values:
                continue
            told = pool(values, examples_of(entry, stage), metric)
            if told.value is not None and not told_of.takes((stage, key), values):
                told = Pooled(told.stations, None, DIFFERENCE)
            here.setdefault(stage, {})[key] = told
        found.append(here)
    return found


def metrics_of(accepted: AcceptedOrder) -> dict[tuple[str, str], MetricOutput]:
    """Return the metrics that may leave, by stage and key, with no more decimals than the policy has."""
    return {
        (item.stage, item.key): accepted.release.narrowed(item)
        for item in accepted.manifest.outputs.metrics
        if item.key in accepted.release.metrics
    }


def values_of(entry: Entry, stage: str, key: str) -> dict[str, float]:
    """Return what each station released of a metric in a round."""
    return {name: float(values[key]) for name, values in (entry.get(stage) or {}).items() if key in values}


def examples_of(entry: Entry, stage: str) -> dict[str, int]:
    """Return how many examples each station answered with in a stage: the weights of its means."""
    found = (entry.get("examples") or {}).get(stage)
    return dict(found if isinstance(found, Mapping) else entry.get("num_examples") or {})


def table_codes(accepted: AcceptedOrder, rounds: Sequence[Entry]) -> list[dict[str, dict[str, str]]]:
    """Return for each round, by stage and table, why what was pooled is not told; empty text where it is.

    `orchestrator.federation.told_tables` has noted it with the round; rounds of earlier versions are looked at beside each other.
    """
    told_of = ToldSets()
    found: list[dict[str, dict[str, str]]] = []
    for entry in rounds:
        here: dict[str, dict[str, str]] = {}
        noted = entry.get("untold_tables")
        for stage, key in _pooled_tables(entry):
            if noted is not None:
                here.setdefault(stage, {})[key] = (noted.get(stage) or {}).get(key, "")
                continue
            code = code_of(entry, stage, key, accepted.manifest)
            if not code and not told_of.takes((stage, key), _with_table(entry, stage, key)):
                code = DIFFERENCE
            here.setdefault(stage, {})[key] = code
        found.append(here)
    return found


def _pooled_tables(entry: Entry) -> list[tuple[str, str]]:
    return [
        (stage, key)
        for stage in STAGES
        for key in sorted(
            {
                key
                for name in ("summed_tables", "pooled_tables")
                for key in (entry.get(name) or {}).get(stage) or {}
            }
        )
    ]


def _with_table(entry: Entry, stage: str, key: str) -> list[str]:
    tables = (entry.get("tables") or {}).get(stage) or {}
    return [name for name, found in tables.items() if key in found]


def _nameless(pooled: Mapping[str, Any]) -> dict[str, Any]:
    """Of how many hospitals, and what of them all together; not whose."""
    told = {key: pooled[key] for key in ("table", "moments") if key in pooled}
    return {"of": len(pooled.get("stations") or ())} | told


def _shown(
    entry: Entry,
    pooled: Mapping[str, Mapping[str, Pooled]],
    tables: Mapping[str, Mapping[str, str]],
    *,
    examples_told: bool,
) -> dict[str, Any]:
    shown: dict[str, Any] = {name: entry[name] for name in _KEPT if name in entry}
    shown |= {stage: {} for stage in STAGES if stage in entry}
    shown["means"] = {
        stage: {key: each.value for key, each in found.items() if each.value is not None}
        for stage, found in pooled.items()
    }
    shown["reported"] = {
        stage: {key: each.stations for key, each in found.items()} for stage, found in pooled.items()
    }
    withheld = {
        stage: {key: each.code for key, each in found.items() if each.code} for stage, found in pooled.items()
    }
    shown["tables"] = {}
    shown["tables_reported"] = {
        stage: dict(Counter(key for found in released.values() for key in found))
        for stage, released in (entry.get("tables") or {}).items()
    }
    # Who answered late, not after how long: how long a station takes tells how much it has.
    shown["late"] = [
        {key: line[key] for key in ("station", "stage", "round") if key in line}
        for line in entry.get("late") or ()
    ]
    sums, pools = entry.get("summed_tables") or {}, entry.get("pooled_tables") or {}
    shown["summed_tables"] = {
        stage: {
            key: sums[stage][key] for key, code in found.items() if not code and key in sums.get(stage, {})
        }
        for stage, found in tables.items()
    }
    shown["pooled_tables"] = {
        stage: {
            key: _nameless(pools[stage][key])
            for key, code in found.items()
            if not code and key in pools.get(stage, {})
        }
        for stage, found in tables.items()
    }
    for stage, found in tables.items():
        withheld.setdefault(stage, {}).update({key: code for key, code in found.items() if code})
    shown["withheld"] = {stage: codes for stage, codes in withheld.items() if codes}
    examples = entry.get("num_examples") or {}
    shown["num_examples"], shown["counts"] = {}, {}
    shown["examples_total"] = (
        sum(examples.values()) if examples_told and len(examples) >= MINIMUM_POOLED else None
    )
    # The slowest station's time is that station's.
    shown["compute_s"] = {}
    return shown
