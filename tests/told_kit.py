"""Results with tables, made as they are made: rows of patients through a station's guard, the orchestrator's pool, its document."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egress_documents import ORDER, policy
from result_documents import accepted_order
from roster_kit import roster

from orchestrator.federation.orders import RunProgress, RunState
from orchestrator.federation.strategies.tables import pool_tables, summed_tables
from orchestrator.results.facts import Facts
from orchestrator.results.metrics import metrics_document
from orchestrator.results.shown import shown_rounds
from policies.documents import canonical_json, digest_of, load_yaml_file
from policies.manifest import TrainKind, TrainManifest
from policies.policy import Policy, ReleaseRules
from policies.splits import Split
from station.egress.analyses.tally import Tally
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release

Tables = Mapping[str, Sequence[Sequence[float]]]
STATIONS = ("amstel", "berkel", "dommel")
TRAINS = Path(__file__).resolve().parents[1] / "train_images"


def shipped(name: str) -> TrainManifest:
    """The manifest of a train that ships."""
    return load_yaml_file(TrainManifest, TRAINS / name / "train.yaml")


def rules_for(manifest: TrainManifest, **release: Any) -> Policy:
    """A policy that permits all that a train declares; keywords replace its release rules."""
    rules = {
        "metrics": [],
        "tables": [item.key for item in manifest.outputs.aggregates],
        "trust_statement": None,
        "minimum_cell_count": 10,
        "count_rounding": 1,
        **release,
    }
    return policy(manifest.kind.value, **rules)


def release_of(
    manifest: TrainManifest,
    rules: Policy,
    known: Mapping[str, Sequence[object]],
    stated: Mapping[str, Sequence[object]] | None = None,
) -> Tables:
    """What one station's guard lets leave.

    Args:
        manifest: the train's.
        rules: its policy.
        known: per clinical or acquisition field, what the cohort's table shows of each patient; None where nothing is.
        stated: per column of the train's own, what it answers of each patient; None for a train without a program.
    """
    patients = len(next(iter((stated or known).values())))
    split = Split.TESTING if manifest.kind is TrainKind.EVALUATION else Split.TRAINING
    names = [f"{split}{number}" for number in range(patients)]
    shown = {
        field: {name: (str(value),) for name, value in zip(names, values, strict=True) if value is not None}
        for field, values in known.items()
    }
    tally = Tally(manifest, roster(shown, **{split.value: patients}))
    if stated is None:
        tally.fill()
    else:
        assert tally.take({name: list(values) for name, values in stated.items()}) is None
    counts = CohortCounts({split: SplitCounts(patients, patients)})
    guard = Guard(ReleaseContract.build(manifest, rules, None), counts, None, lambda _: None)
    stage = "evaluate" if manifest.kind is TrainKind.EVALUATION else "analyse"
    released = guard.count(GuardRequest(ORDER, 1, stage, None, Path("/nonexistent/out")), tally)
    assert isinstance(released, Release), released
    return released.tables


def result_folder(
    folder: Path,
    manifest: TrainManifest,
    release: ReleaseRules,
    tables: Mapping[str, Tables],
    *,
    station_results: bool = True,
) -> Path:
    """What `pht-train results` would leave of a run in which these stations released these tables."""
    stage = "evaluate" if manifest.kind is TrainKind.EVALUATION else "analyse"
    listed: Any = {
        name: {key: [list(line) for line in each] for key, each in found.items()}
        for name, found in tables.items()
    }
    pooled = pool_tables(listed, manifest, release)
    entry = {
        "round": 1,
        "took_part": sorted(tables),
        stage: {name: {} for name in tables},
        "tables": {stage: listed},
        "pooled_tables": {stage: {key: each.as_json() for key, each in pooled.items()}},
        "summed_tables": {stage: summed_tables(pooled, manifest)},
    }
    accepted = accepted_order(stages=(stage,), rounds=1, stations=tuple(sorted(tables))).model_copy(
        update={
            "manifest": manifest,
            "release": release.model_copy(update={"station_results": station_results}),
        }
    )
    facts = Facts(
        accepted=accepted,
        policy=None,
        progress=RunProgress(state=RunState.FINISHED, round=1, rounds=1),
        rounds=shown_rounds(accepted, [entry]),
        history=(),
        weights=None,
        model_round=0,
        tensors=(),
        software={},
    )
    folder.mkdir(parents=True, exist_ok=True)
    document = canonical_json(metrics_document(facts)) + b"\n"
    (folder / "metrics.json").write_bytes(document)
    subject = {"name": "metrics.json", "digest": {"sha256": digest_of(document).removeprefix("sha256:")}}
    (folder / "provenance.json").write_text(json.dumps({"subject": [subject]}))
    return folder
