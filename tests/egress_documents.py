"""A manifest, a policy and weights that the egress tests share; each test changes what it is about."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from policies.documents import canonical_json, load_json
from policies.manifest import TrainManifest
from policies.policy import Policy
from policies.splits import Split
from policies.wire.arrays import read_layout
from station.egress.contract import CohortCounts, ReleaseContract, SplitCounts
from station.egress.guard import Guard, GuardRequest

ORDER = "sha256:" + "5" * 64
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
COUNTS = CohortCounts(
    {
        Split.TRAINING: SplitCounts(70, 70),
        Split.VALIDATION: SplitCounts(20, 20),
        Split.TESTING: SplitCounts(0, 0),
    }
)
METRIC = {
    "key": "loss",
    "stage": "train",
    "minimum": 0.0,
    "maximum": 100.0,
    "decimals": 3,
    "split": "training",
}


def manifest(kind: str = "training", **outputs: Any) -> TrainManifest:
    """A train; keywords replace its outputs."""
    declared: dict[str, Any] = {"metrics": [METRIC]}
    if kind == "training":
        declared["tensors"] = {"layout": "same-as-input", "buffers": ["*.running_*", "*.num_batches_tracked"]}
    return load_json(
        TrainManifest,
        canonical_json(
            {
                "schema_version": 1,
                "name": "cxr-finding",
                "version": "1.0.0",
                "title": "A chest X-ray finding",
                "kind": kind,
                "interface": "flower",
                "data": {"modalities": ["DX"], "profile": "thorax-1@1"},
                "outputs": {**declared, **outputs},
                "resources": {"memory_mib": 1024, "cpus": 1.0},
                "contact": {"name": "A. Researcher", "organisation": "UMC", "email": "a@umc.example"},
                "licence": "Apache-2.0",
                "source_commit": "unversioned",
            }
        ),
        what="train.yaml",
    )


def policy(kind: str = "training", *, data: Mapping[str, Any] | None = None, **release: Any) -> Policy:
    """A policy; keywords replace its release rules."""
    rules: dict[str, Any] = {
        "metrics": ["loss"],
        "maximum_bytes": 1 << 30,
        "trust_statement": "orchestrator-sees-single-updates",
    }
    if kind == "training":
        rules["tensors"] = {}
    return load_json(
        Policy,
        canonical_json(
            {
                "schema_version": 1,
                "id": "cxr-finding",
                "version": 1,
                "board": "demo-board",
                "title": "A chest X-ray finding",
                "summary": {"nl": "Een bevinding.", "en": "A finding."},
                "kind": kind,
                "manifest_digest": "sha256:" + "1" * 64,
                "image_config_digests": ["sha256:" + "2" * 64],
                "requester": {
                    "organisation": "UMC",
                    "contact": "A. Researcher",
                    "requester_class": "participant",
                    "country": "NL",
                    "key": "3" * 64,
                },
                "radiologist": "B. Radiologist",
                "purpose": {
                    "code": "method-development",
                    "statement": "To learn.",
                    "benefit": "Better reading.",
                },
                "legal": {
                    "gdpr_article_6": "6(1)(e)",
                    "gdpr_article_9": "9(2)(j)",
                    "national_ground": "UAVG art. 24",
                    "controllers": ["UMC"],
                    "dpia": "DPIA-1",
                    "ethics": "nWMO-1",
                    "agreement": {"reference": "DTA-1", "expires": date(2028, 1, 1).isoformat()},
                    "model_status": "undetermined",
                },
                "elsi": [{"question": "Who benefits?", "answer": "Patients."}],
                "data": {
                    "collections": ["chest-radiographs"],
                    "consent_purposes": ["research-participants"],
                    "consent_modes": ["opt-in"],
                    "modalities": ["DX"],
                    "minimum_patients": 50,
                    **(data or {}),
                },
                "runs": {
                    "minimum_stations": 3,
                    "runs": 10,
                    "rounds": 20,
                    "releases": 200,
                    "strategies": ["FedAvg"] if kind == "training" else ["none"],
                },
                "release": {**rules, **release},
                "resources": {"memory_mib": 4096, "cpus": 2.0, "run_hours": 2.0},
                "valid_from": "2026-11-01T00:00:00Z",
                "valid_until": "2027-11-01T00:00:00Z",
            }
        ),
        what="policy.yaml",
    )


Tensors = dict[str, NDArray[Any]]


def weights() -> Tensors:
    """A small model: two layers, BatchNorm buffers, a counter."""
    random = np.random.default_rng(7)
    return {
        "layer.weight": random.normal(size=(4, 3)).astype(np.float32),
        "layer.bias": random.normal(size=(4,)).astype(np.float32),
        "norm.running_mean": random.normal(size=(4,)).astype(np.float32),
        "norm.num_batches_tracked": np.array(3, np.int64),
    }


def moved(tensors: Tensors, by: float = 0.01) -> Tensors:
    """The weights after a step of training."""
    random = np.random.default_rng(8)
    return {
        name: np.asarray(
            values + 1 if values.dtype.kind in "iu" else values + by * random.normal(size=values.shape),
            values.dtype,
        )
        for name, values in tensors.items()
    }


class Bench:
    """A guard with its files: the inbound weights, and a place for replies and releases."""

    def __init__(self, folder: Path, inbound: Tensors | None = None) -> None:
        self.inbound_tensors = weights() if inbound is None else inbound
        self.inbound = folder / "inbound.safetensors"
        save_file(self.inbound_tensors, self.inbound)
        self.reply = folder / "reply.safetensors"
        self.out = folder / "out.safetensors"

    def contract(self, train: TrainManifest | None = None, rules: Policy | None = None) -> ReleaseContract:
        return ReleaseContract.build(train or manifest(), rules or policy(), read_layout(self.inbound))

    def guard(
        self, train: TrainManifest | None = None, rules: Policy | None = None, counts: CohortCounts = COUNTS
    ) -> Guard:
        return Guard(self.contract(train, rules), counts)

    def request(self, stage: Any = "train", round_: int = 1) -> GuardRequest:
        return GuardRequest(ORDER, round_, stage, self.inbound, self.out)

    def answer(self, tensors: Tensors | None = None) -> Path:
        save_file(moved(self.inbound_tensors) if tensors is None else tensors, self.reply)
        return self.reply


def head(**fields: Any) -> dict[str, Any]:
    """A reply's head as the runtime sends it."""
    return {"type": "reply", "id": 1, "metrics": {"loss": 0.123456}, "rows": {}, "error": None, **fields}
