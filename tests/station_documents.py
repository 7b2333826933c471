"""What the tests of a station say to it: settings, a manifest, a policy, instructions."""

from collections.abc import Mapping
from typing import Any

import yaml
from catalogue_log import COLLECTION
from egress_documents import weights
from safetensors.numpy import save

from policies.documents import digest_of
from policies.order import PAYLOAD_TYPE
from policies.policy import ConsentMode, PurposeCode, RequesterClass
from policies.wire.instructions import Blob, Instruction, Kind
from station.settings import (
    CeilingSettings,
    CollectionSettings,
    HospitalSettings,
    OrchestratorSettings,
    PollingSettings,
    ServiceSettings,
    StationSettings,
)

STATION = "amstel"

STATIONS = (STATION, "berkel", "dommel")

PATIENTS = range(40)

IMAGE = "sha256:" + "2" * 64

MANIFEST = f"""
schema_version: 1
name: cxr-classification
version: 1.0.0
title: A chest X-ray finding
kind: training
interface: flower
data: {{modalities: [DX], profile: thorax-1@1, clinical_fields: [pneumonia], label: pneumonia}}
hyperparameters:
  rate: {{type: float, minimum: 0.0, maximum: 10.0, default: 1.0}}
outputs:
  tensors: {{layout: same-as-input, buffers: ["norm.*"]}}
  metrics:
    - {{key: loss, stage: train, minimum: 0, maximum: 100, split: training}}
    - {{key: auc, stage: evaluate, minimum: 0, maximum: 1, split: validation}}
error_codes: [NO_LABELS, DIVERGED]
resources: {{memory_mib: 256, cpus: 1}}
contact: {{name: A Person, organisation: A Hospital, email: a@b.nl}}
licence: Apache-2.0
source_commit: unversioned
images:
  - {{variant: cpu, config_digest: "{IMAGE}"}}
""".encode()


def settings(**changes: Any) -> StationSettings:
    """A hospital that asks no click, two trains at once, refreshed at every message."""
    sections: dict[str, Any] = {
        "name": STATION,
        "orchestrator": OrchestratorSettings(
            url="https://orchestrator.example", mirror_url="https://orchestrator.example/mirror"
        ),
        "services": ServiceSettings(separation="none"),
        "ceilings": CeilingSettings(memory_mib=1024, cpus=2.0, runs_at_once=2),
        "hospital": HospitalSettings(operator_approval="never", consent_max_age_days=30),
        "polling": PollingSettings(trust_refresh_s=0.5),
        "collections": (
            CollectionSettings(
                name=COLLECTION,
                consent_mode=ConsentMode.OPT_OUT,
                legal_ground="GDPR art. 9(2)(j)",
                opt_out_ground="wgbo-7-458-1-b",
                opt_out_review="METC 2026-001",
                marking="patient",
                requester_classes=tuple(RequesterClass),
                purposes=tuple(PurposeCode),
                countries=("NL",),
            ),
        ),
    }
    return StationSettings(**{**sections, **changes})


POLICY: Mapping[str, object] = {
    "image_config_digests": [IMAGE],
    "manifest_digest": digest_of(MANIFEST),
    "data.collections": [COLLECTION],
    "data.minimum_patients": 10,
    "runs.hyperparameters": {"rate": {"type": "float", "minimum": 0.0, "maximum": 5.0, "default": 1.0}},
    "release.metrics": ["loss", "auc"],
    "release.minimum_patients_per_metric": 2,
    # Answers leave as soon as they are there; the tests of the quantum set one.
    "release.timing_quantum_s": 0.0,
    "release.error_codes": ["NO_LABELS"],
}


def order_digest(envelope: bytes) -> str:
    """The digest by which instructions name an order."""
    from policies.signing import unsafe_payload

    return digest_of(unsafe_payload(envelope, PAYLOAD_TYPE))


def prepare(envelope: bytes) -> Instruction:
    """The instruction that brings an order."""
    return Instruction(
        kind=Kind.PREPARE, order_digest=order_digest(envelope), order=envelope.decode(), deadline_s=600
    )


def instruction(envelope: bytes, kind: Kind = Kind.TRAIN, round_: int = 1, **changes: Any) -> Instruction:
    """An instruction of a run."""
    if kind is Kind.FINISH:
        return Instruction(kind=kind, order_digest=order_digest(envelope), deadline_s=60, **changes)
    initial = save(weights())
    fields: dict[str, Any] = {
        "config": {"rate": 1.0},
        "weights": Blob(digest=digest_of(initial), size=len(initial)),
        "deadline_s": 60,
    }
    return Instruction(kind=kind, order_digest=order_digest(envelope), round=round_, **{**fields, **changes})


def as_yaml(document: bytes) -> dict[str, Any]:
    """A policy file as a dict."""
    loaded: dict[str, Any] = yaml.safe_load(document)
    return loaded
