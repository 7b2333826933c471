"""Documents that the federation's tests share."""

from policies.manifest import TrainManifest
from policies.order import RunOrder

DIGEST = "sha256:" + "a" * 64
NAMES = ("amstel", "berkel", "dommel")


def manifest() -> TrainManifest:
    return TrainManifest.model_validate_json(
        """
        {"schema_version": 1, "name": "trivial", "version": "1.0.0", "title": "Adds one", "kind": "training",
         "interface": "flower", "data": {"modalities": ["DX"], "profile": "thorax-1@1"},
         "outputs": {"tensors": {"layout": "same-as-input", "buffers": ["*count"]},
                     "metrics": [
                       {"key": "loss", "stage": "train", "minimum": 0, "maximum": 100, "split": "training"},
                       {"key": "auc", "stage": "evaluate", "minimum": 0, "maximum": 1, "split": "validation"}]},
         "resources": {"memory_mib": 256, "cpus": 1},
         "contact": {"name": "A", "organisation": "B", "email": "a@b.nl"}, "licence": "Apache-2.0",
         "source_commit": "unversioned"}
        """
    )


def run_order(**changes: object) -> RunOrder:
    fields: dict[str, object] = {
        "schema_version": 1,
        "order_id": "0" * 32,
        "policy_id": "trivial",
        "policy_version": 1,
        "policy_digest": DIGEST,
        "manifest_digest": DIGEST,
        "image_config_digest": DIGEST,
        "hyperparameters": {},
        "initial_weights": {"digest": DIGEST, "size": 10},
        "stations": list(NAMES),
        "rounds": 2,
        "stages": ["train", "evaluate"],
        "strategy": {"name": "FedAvg", "parameters": {}},
        "minimum_stations": 2,
        "nonce": "0" * 32,
        "issued": "2026-11-22T00:00:00Z",
        "expires": "2199-12-22T00:00:00Z",
    }
    return RunOrder.model_validate(fields | changes)
