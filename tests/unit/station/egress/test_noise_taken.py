"""What leaves a station with noise is taken where it arrives: the orchestrator holds it to the same documents."""

from pathlib import Path
from typing import Any

import pytest
from egress_documents import COUNTS, ORDER, Bench, head, manifest, policy
from map_documents import map_manifest
from roster_kit import roster

from orchestrator.federation.replies import Accepted, check_reply
from orchestrator.federation.updates_check import check_release
from policies.manifest import TrainManifest
from policies.order import Stage
from policies.policy import Policy, ReleaseRules
from policies.wire.instructions import Instruction, Kind
from station.egress.analyses.tally import Tally
from station.egress.contract import ReleaseContract
from station.egress.guard import Guard, GuardRequest
from station.egress.release import Release, ReplyStamp, released_reply

ROWS = {
    "columns": [
        {"name": "arm", "type": "category", "categories": ["a", "b", "c"]},
        {"name": "dose", "type": "float", "minimum": -7.123456, "maximum": 3.25},
    ]
}
AGGREGATES = [
    {"key": "arms", "column": "arm", "split": "training"},
    {"key": "crossed", "column": "dose", "edges": [-1.0, 0.0, 1.0], "by": "arm", "split": "training"},
    {"key": "doses", "column": "dose", "measure": "sum", "by": "arm", "decimals": 1, "split": "training"},
    {"key": "spread", "column": "dose", "measure": "quantiles", "edges": [-1.0, 0.0, 1.0], "probabilities": [0.1, 0.5, 0.9], "split": "training"},
    {"key": "ends", "column": "outcome", "split": "training"},
]  # fmt: skip


def noisy(kind: str, multiplier: float, **release: Any) -> Policy:
    privacy = {"noise_multiplier": multiplier, "epsilon": 1e7, "delta": 1e-5}
    return policy(kind, differential_privacy=privacy, timing_quantum_s=60.0, **release)


def taken(release: object, stage: Stage, train: TrainManifest, rules: ReleaseRules) -> Release:
    assert isinstance(release, Release), release
    stamp = ReplyStamp(
        attempt=1, correlation_id="c", compute_s=0.0, ledger_head="sha256:" + "1" * 64, audit_head="sha256:" + "2" * 64
    )  # fmt: skip
    asked = Instruction(kind=Kind(stage), order_digest=ORDER, round=1, deadline_s=60)
    assert check_reply(released_reply(release, stamp), asked, train, rules) == Accepted()
    return release


@pytest.mark.parametrize("multiplier", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_noisy_update_and_its_metrics_are_taken(tmp_path: Path, multiplier: float, precision: str) -> None:
    bench, train = Bench(tmp_path), manifest()
    tensors = {"clipping_norm": 5.0, "float_buffers": "withhold", "precision": precision}
    policy = noisy("training", multiplier, tensors=tensors)
    contract, rules = bench.contract(train, policy), policy.release
    for _ in range(5):
        guard = Guard(contract, COUNTS, charge=lambda _: None)
        release = taken(guard.check(bench.request(), head(), bench.answer()), "train", train, rules)
        assert release.arrays is not None
        blob = released_reply(release, ReplyStamp(1, "c", 0.0, None, None)).release
        assert blob is not None
        assert contract.tensors is not None
        assert check_release(blob, release.arrays.path, bench.inbound, contract.tensors, rules) == Accepted()


@pytest.mark.parametrize("multiplier", [0.01, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("patients", [0, 3, 70])
def test_noisy_tables_are_taken(tmp_path: Path, multiplier: float, patients: int) -> None:
    """Of nobody as of many, and with so much noise that nothing but noise is left."""
    train = map_manifest(rows=ROWS, aggregates=AGGREGATES)
    rules = noisy(
        "analysis", multiplier, metrics=[], tables=[item["key"] for item in AGGREGATES], trust_statement=None
    )
    tally = Tally(train, roster(training=70, validation=20))
    for number in range(patients):
        dose = -7.123456 + number / 70 * 10.373456
        assert tally.answered(f"training{number}", {"arm": "abc"[number % 3], "dose": dose})
    guard = Guard(ReleaseContract.build(train, rules, None), COUNTS, charge=lambda _: None)
    for _ in range(20):
        release = taken(
            guard.count(GuardRequest(ORDER, 1, "analyse", None, tmp_path / "out"), tally),
            "analyse",
            train,
            rules.release,
        )
        assert set(release.tables) == {item["key"] for item in AGGREGATES}
