"""A round's record: one line of `rounds.jsonl`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestrator.federation.aggregation import weighted_means
from orchestrator.federation.answers import LATE
from orchestrator.federation.carried import Carried
from orchestrator.federation.orders import AcceptedOrder
from orchestrator.federation.speeds import StageSpeeds
from orchestrator.federation.strategies.tables import pool_tables, summed_tables
from policies.documents import format_moment
from policies.wire.instructions import Kind, StationReply

Entry = dict[str, Any]


def open_entry(run: Carried, round_: int) -> Entry:
    """Begin a round: of how many stations, how many it takes, and who is known not to take part."""
    return {
        "round": round_,
        "of": len(run.order.stations),
        "quorum": run.order.minimum_stations,
        "missing": dict(run.stations.missing),
        "excluded": dict(run.stations.excluded),
        "took_part": [],
    }


def write_absences(run: Carried, entry: Entry, stage: str, answered: Collection[str]) -> None:
    """Write down for each station that has no part in a stage why, since when, and what it calls its run."""
    known, absent = run.stations, {}
    for name in run.order.stations:
        if name in answered:
            continue
        since = known.since.get(name)
        absent[name] = {
            "code": entry["missing"].get(name, LATE),
            "since": format_moment(since) if since else None,
            "correlation_id": known.correlation.get(name, ""),
        }
    entry.setdefault("absent", {})[stage] = absent
    entry["excluded"] = dict(known.excluded)


def write_deadlines(run: Carried, entry: Entry, speeds: StageSpeeds) -> None:
    """Write down how long each station was given and what it took, and which answers to earlier questions came late."""
    entry.setdefault("deadlines", {})[speeds.stage] = {
        name: dict(line) for name, line in sorted(speeds.deadlines.items())
    }
    lates = entry.setdefault("late", [])
    for late in run.lates:
        if late.reply.kind is not Kind.PREPARE:
            told = {"stage": late.reply.kind.value, "round": late.reply.round}
            lates.append({"station": late.station, "taken_s": round(late.taken_s, 3), **told})
    run.lates.clear()


def write_stage(entry: Entry, stage: str, answers: Mapping[str, StationReply]) -> None:
    """Write what the stations released in one stage."""
    entry[stage] = {
        name: {key: float(value) for key, value in reply.metrics.items()} for name, reply in answers.items()
    }
    entry.setdefault("compute_s", {})[stage] = {name: reply.compute_s for name, reply in answers.items()}
    # By stage: a station trains on other images than it evaluates on.
    entry.setdefault("examples", {})[stage] = {name: reply.num_examples for name, reply in answers.items()}
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


def close_entry(entry: Entry, accepted: AcceptedOrder, wall_s: float) -> None:
    """Write what follows from all stages: who took part, means, pools, and what the round cost beside the stations' work."""
    stages: Sequence[str] = accepted.order.stages
    took_part = set.intersection(*(set(entry[stage]) for stage in stages if entry.get(stage) is not None))
    entry["took_part"] = sorted(took_part)
    examples = entry.get("examples", {})
    entry["means"] = {
        stage: weighted_means(entry[stage], examples.get(stage, entry["num_examples"])) for stage in stages
    }
    pooled = {
        stage: pool_tables(tables, accepted.manifest, accepted.release)
        for stage, tables in entry.get("tables", {}).items()
    }
    entry["pooled_tables"] = {
        stage: {key: each.as_json() for key, each in found.items()} for stage, found in pooled.items()
    }
    entry["summed_tables"] = {
        stage: summed_tables(found, accepted.manifest) for stage, found in pooled.items()
    }
    critical_s = sum(max(entry["compute_s"][stage].values(), default=0.0) for stage in stages)
    entry["wall_s"] = round(wall_s, 4)
    # compute_s comes in the policy's quantum: the difference is an estimate, and never below zero.
    entry["overhead_s"] = round(max(0.0, wall_s - critical_s), 4)
