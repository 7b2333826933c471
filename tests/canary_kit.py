"""A station in process whose policy bounds how well an update tells its members, with trains that overfit, generalise, lie or fail."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import station_kit
from cohort_files import encoded, picture, radiograph
from egress_documents import moved
from safetensors.numpy import load_file
from station_documents import as_yaml
from station_kit import StationKit
from station_simulators import Answered

from policies.documents import canonical_json, digest_of
from station.sandbox.spec import TrainRequest

LIMIT = 0.95
PATIENTS = 70
"""Some fifteen of them are held back: chance alone gets past the limit less than once in a million times."""


def canary_manifest(**outputs: Any) -> bytes:
    """The kit's train, which answers `score`."""
    document = as_yaml(station_kit.MANIFEST)
    document["outputs"] |= {"membership_scores": True, **outputs}
    return canonical_json(document)


def make_kit(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: Mapping[str, object] | None = None,
    patients: int = PATIENTS,
    limit: float | None = LIMIT,
    manifest: bytes | None = None,
    **settings: Any,
) -> StationKit:
    """A station whose patients have a picture each that no other has."""
    monkeypatch.setattr(station_kit, "MANIFEST", manifest or canary_manifest())
    monkeypatch.setattr(station_kit, "PATIENTS", range(1))
    changes: dict[str, object] = {
        "manifest_digest": digest_of(station_kit.MANIFEST),
        "runs.runs": 20,
        "runs.releases": 200,
        "resources.memory_mib": 1024,
        "resources.cpus": 2.0,
        **(policy or {}),
    }
    if limit is not None:
        changes["release.membership_limit"] = limit
    kit = StationKit.make(folder, changes, **settings)
    for number in range(1, patients):
        kit.intake.instances(number, data=encoded(radiograph(picture(number))))
    kit.intake.clinical(*range(1, patients))
    return kit


@dataclass
class Remembers:
    """A train whose update lowers the loss of its own patients by `gain`; what it scores is as `answer` says.

    Attributes:
        members: digests of the images that it was trained on.
        seen: the folder of each scoring, and what was asked with.
    """

    gain: float = 0.0
    answer: Callable[[list[float]], Any] = list
    members: set[str] = field(default_factory=set)
    seen: list[tuple[Path, bytes]] = field(default_factory=list)

    def __call__(self, request: TrainRequest, cohort: Path) -> Answered:
        listed = json.loads((cohort / "datalist.json").read_bytes())
        if request.kind == "score":
            assert request.arrays is not None
            self.seen.append((cohort, request.arrays.read_bytes()))
            after = len(self.seen) % 2 == 0
            losses = [self._loss(cohort / case["image"], after) for case in listed["validation"]]
            return {"scores": self.answer(losses)}, {}, None
        if request.kind == "evaluate":
            return {"auc": 0.75}, {}, None
        assert request.arrays is not None
        self.members = {_digest(cohort / case["image"]) for case in listed["training"]}
        return {"loss": 0.5}, {}, moved(load_file(request.arrays))

    def _loss(self, image: Path, after: bool) -> float:
        digest = _digest(image)
        return int(digest[:8], 16) / 2**32 - (self.gain if after and digest in self.members else 0.0)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
