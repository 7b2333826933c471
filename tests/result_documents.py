"""Documents of runs for tests of results: an accepted order, its rounds, and the policy as the board signed it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator_site import MANIFEST, STATIONS, policy_yaml, signed_order, weights

from orchestrator.federation.orders import AcceptedOrder
from policies.charter import POLICY_PAYLOAD_TYPE
from policies.documents import digest_of, load_yaml
from policies.manifest import TrainManifest
from policies.order import PAYLOAD_TYPE, RunOrder
from policies.outputs import MetricOutput
from policies.policy import Policy
from policies.signing import Signer, generate_key, load_signer, sign_envelope, unsafe_payload
from policies.splits import Split

KEY = "0" * 64


def metric(decimals: int = 4, minimum: float = 0.0, maximum: float = 1.0) -> MetricOutput:
    """A number as a manifest declares it."""
    return MetricOutput(
        key="auc",
        stage="evaluate",
        minimum=minimum,
        maximum=maximum,
        decimals=decimals,
        split=Split.VALIDATION,
    )


def release(*, station_results: bool) -> dict[str, Any]:
    """The release rules of the trivial train's policy."""
    policy = load_yaml(Policy, policy_yaml(KEY), what="policy")
    return {**policy.release.model_dump(mode="json"), "station_results": station_results}


def accepted_order(
    *,
    station_results: bool = False,
    stages: tuple[str, ...] = ("train", "evaluate"),
    rounds: int = 2,
    stations: tuple[str, ...] = STATIONS,
    policy_digest: str | None = None,
    manifest: bytes = MANIFEST,
    signer: Signer | None = None,
    folder: Path | None = None,
) -> AcceptedOrder:
    """An order as the orchestrator has accepted it."""
    if signer is None:
        signer = _signer(folder)
    envelope = signed_order(
        signer,
        policy_digest or digest_of(b"policy"),
        weights(),
        stages=list(stages),
        rounds=rounds,
        stations=list(stations),
    )
    order = RunOrder.model_validate_json(unsafe_payload(envelope, PAYLOAD_TYPE))
    fields = {
        "order_digest": digest_of(unsafe_payload(envelope, PAYLOAD_TYPE)),
        "envelope": envelope.decode(),
        "order": order.model_dump(mode="json"),
        "manifest": load_yaml(TrainManifest, manifest, what="manifest").model_dump(mode="json"),
        "release": release(station_results=station_results),
        "nodes": {name: number for number, name in enumerate(stations, 1)},
    }
    return AcceptedOrder.model_validate_json(json.dumps(fields))


def _signer(folder: Path | None) -> Signer:
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        path = (folder or Path(made)) / "requester.pem"
        if not path.exists():
            generate_key(path)
        return load_signer(path)


def round_entry(
    number: int,
    auc: Mapping[str, float],
    examples: Mapping[str, int],
    missing: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A finished round in which these stations released an AUC and a loss."""
    weight = {name: examples[name] for name in auc}
    mean = sum(auc[name] * weight[name] for name in auc) / sum(weight.values())
    return {
        "round": number,
        "took_part": sorted(auc),
        "missing": dict(missing or {}),
        "train": {name: {"loss": 1 + value} for name, value in auc.items()},
        "evaluate": {name: {"auc": value} for name, value in auc.items()},
        "means": {"train": {"loss": 1 + mean}, "evaluate": {"auc": mean}},
        "num_examples": dict(examples),
        "examples": {"train": dict(examples), "evaluate": dict(examples)},
        "counts": {name: {"images": value} for name, value in examples.items()},
        "tables": {"train": {}, "evaluate": {}},
        "summed_tables": {"train": {}, "evaluate": {}},
        "compute_s": {"train": dict.fromkeys(auc, 2.0), "evaluate": dict.fromkeys(auc, 1.0)},
        "heads": {name: {"egress_ledger": None, "audit": None} for name in auc},
        "wall_s": 3.5,
        "overhead_s": 0.5,
        "aggregate_s": 0.1,
    }


def signed_policy(signer: Signer, **changes: object) -> tuple[bytes, bytes]:
    """A policy's bytes, and its envelope."""
    document = policy_yaml(signer.public_hex, **changes)
    return document, sign_envelope(document, POLICY_PAYLOAD_TYPE, signer)
