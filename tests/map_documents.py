"""A map train's manifest, as YAML's own values, and the rows of its patients."""

from collections.abc import Mapping
from typing import Any

from policies.documents import canonical_json, load_json
from policies.manifest import TrainManifest

MAP_ROWS: dict[str, Any] = {
    "columns": [
        {"name": "lung_share", "type": "float", "minimum": 0.0, "maximum": 1.0, "missing": True},
        {"name": "nodules", "type": "int", "minimum": 0, "maximum": 99},
        {"name": "sex", "type": "category", "categories": ["F", "M"], "missing": True},
    ],
    "patient_timeout_s": 60,
}
SHARES: dict[str, Any] = {
    "key": "lung_shares",
    "column": "lung_share",
    "edges": [0.25, 0.5],
    "split": "training",
    "minimum_cell_count": 5,
}
BY_SEX: dict[str, Any] = {
    "key": "nodules_by_sex",
    "column": "nodules",
    "edges": [1, 10],
    "by": "sex",
    "split": "training",
    "minimum_cell_count": 5,
}
ENDS: dict[str, Any] = {
    "key": "ends",
    "column": "outcome",
    "split": "training",
    "minimum_cell_count": 5,
}


def map_manifest(changes: Mapping[str, object] | None = None, **outputs: Any) -> TrainManifest:
    """A train of one patient at a time; keywords replace its outputs, `changes` its other keys."""
    document: dict[str, Any] = {
        "schema_version": 1,
        "name": "lung-shares",
        "version": "1.0.0",
        "title": "How much of the body is lung",
        "kind": "analysis",
        "interface": "map",
        "data": {"modalities": ["CT"], "profile": "thorax-1@1"},
        "outputs": {"rows": MAP_ROWS, "aggregates": [SHARES, BY_SEX, ENDS], **outputs},
        "error_codes": ["NO_LUNG"],
        "resources": {"memory_mib": 256, "cpus": 1.0},
        "contact": {"name": "A. Researcher", "organisation": "UMC", "email": "a@umc.example"},
        "licence": "Apache-2.0",
        "source_commit": "unversioned",
        **(changes or {}),
    }
    return load_json(TrainManifest, canonical_json(document), what="train.yaml")


def row(share: float | None = 0.3, nodules: int = 0, sex: str | None = "F") -> dict[str, Any]:
    """What an honest program answers of one patient."""
    return {"lung_share": share, "nodules": nodules, "sex": sex}
