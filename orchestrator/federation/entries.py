"""A round's record: one line of `rounds.jsonl`."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.federation.aggregation import weighted_means
from orchestrator.federation.replies import sum_tables
from policies.manifest import TrainManifest
from policies.wire.instructions import StationReply

Entry = dict[str, Any]


def open_entry(round_: int, missing: Mapping[str, str]) -> Entry:
    """Begin a round, with who is known not to take part."""
    return {"round": round_, "missing": dict(missing), "took_part": []}


def write_stage(entry: Entry, stage: str, answers: Mapping[str, StationReply]) -> None:
    """Write what the stations released in one stage."""
    entry[stage] = {
        name: {key: float(value) for key, value in reply.metrics.items()} for name, reply in answers.items()
    }
    entry.setdefault("compute_s", {})[stage] = {name: reply.compute_s for name, reply in answers.items()}
    entry["num_examples"] = entry.get("num_examples", {}) | {
        name: reply.num_examples for name, reply in answers.items()
    }
    entry.setdefault("tables", {})[stage] = {
        name: reply.tables for name, reply in answers.items() if reply.tables
    }
    entry["counts"] = entry.get("counts", {}) | {name: reply.counts for name, reply in answers.items()}
    heads = {
        name: {"egress_ledger": reply.egress_ledger_head, "audit": reply.audit_head}
        for name, reply in answers.items()
    }
    entry["heads"] = entry.get("heads", {}) | heads


def close_entry(entry: Entry, stages: Sequence[str], manifest: TrainManifest, wall_s: float) -> None:
    """Write what follows from all stages: who took part, means, sums, and what the round cost beside the stations' work."""
    took_part = set.intersection(*(set(entry[stage]) for stage in stages if entry.get(stage) is not None))
    entry["took_part"] = sorted(took_part)
    entry["means"] = {stage: weighted_means(entry[stage], entry["num_examples"]) for stage in stages}
    entry["summed_tables"] = {
        stage: sum_tables(list(tables.values()), manifest)
        for stage, tables in entry.get("tables", {}).items()
    }
    critical_s = sum(max(entry["compute_s"][stage].values(), default=0.0) for stage in stages)
    entry["wall_s"] = round(wall_s, 4)
    # compute_s comes in the policy's quantum: the difference is an estimate, and never below zero.
    entry["overhead_s"] = round(max(0.0, wall_s - critical_s), 4)
