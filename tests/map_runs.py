"""A whole station in one process whose policy permits a map train; see `station_kit`."""

from pathlib import Path
from typing import Any

import pytest
import station_kit
from map_documents import BY_SEX, ENDS, SHARES, map_manifest
from station_kit import StationKit

from policies.documents import canonical_json, digest_of
from policies.wire.instructions import Kind, StationReply

ORDER: dict[str, Any] = {
    "hyperparameters": {},
    "initial_weights": None,
    "rounds": 1,
    "stages": ["analyse"],
    "strategy": {"name": "none", "parameters": {}},
}
AGGREGATES = [{**item, "minimum_cell_count": 3} for item in (SHARES, BY_SEX, ENDS)]


def map_kit(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: dict[str, object] | None = None,
    hyperparameters: dict[str, Any] | None = None,
    **settings: Any,
) -> StationKit:
    """Forty patients, and the map train of `map_documents` on their radiographs, two containers at once."""
    manifest = map_manifest(
        {
            "data": {"modalities": ["DX"], "profile": "thorax-1@1", "clinical_fields": ["pneumonia"]},
            "resources": {"memory_mib": 256, "cpus": 1.0, "pids": 64, "scratch_mib": 16},
            "hyperparameters": hyperparameters or {},
            "images": [{"variant": "cpu", "config_digest": station_kit.IMAGE}],
        },
        aggregates=AGGREGATES,
    )
    monkeypatch.setattr(station_kit, "MANIFEST", canonical_json(manifest))
    changes: dict[str, object] = {
        "kind": "analysis",
        "manifest_digest": digest_of(station_kit.MANIFEST),
        "runs.runs": 20,
        "runs.strategies": ["none"],
        "runs.hyperparameters": {},
        "release.tensors": None,
        "release.trust_statement": None,
        "release.metrics": [],
        "release.tables": ["lung_shares", "nodules_by_sex", "ends"],
        "release.minimum_cell_count": 3,
        **(policy or {}),
    }
    return StationKit.make(folder, changes, **settings)


def analyse(kit: StationKit, envelope: bytes, round_: int = 1, **changes: Any) -> StationReply:
    """One message of a map run."""
    reply, arrays = kit.message(envelope, Kind.ANALYSE, round_, **{"weights": None, "config": {}, **changes})
    assert arrays is None
    return reply
