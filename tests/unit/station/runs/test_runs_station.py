"""An order whose train has no program, over a whole station: nothing is fetched, loaded or started, and the station counts."""

from pathlib import Path
from typing import Any

import pytest
import station_kit
from catalogue_log import patient
from map_runs import ORDER, analyse
from station_kit import StationKit

from policies.documents import canonical_json, digest_of, load_json
from policies.image_config import config_without_program
from policies.manifest import TrainManifest
from policies.refusals import RefusalCode
from policies.splits import Split
from policies.wire.instructions import Kind, Status
from station.cohorts import load

CONFIG = digest_of(config_without_program("who", "1.0.0"))
DOCUMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "who",
    "version": "1.0.0",
    "title": "Who the patients are",
    "kind": "analysis",
    "interface": "station",
    "data": {"modalities": ["DX"], "profile": "thorax-1@1", "clinical_fields": ["pneumonia"]},
    "outputs": {
        "rows": {
            "columns": [
                {"name": "pneumonia", "type": "category", "categories": ["0", "1"], "source": "clinical"}
            ]
        },
        "aggregates": [
            {"key": "findings", "column": "pneumonia", "split": "training", "minimum_cell_count": 1},
            {"key": "ends", "column": "outcome", "split": "training", "minimum_cell_count": 1},
        ],
    },
    "resources": {"memory_mib": 64, "cpus": 0.1},
    "contact": {"name": "A. Researcher", "organisation": "UMC", "email": "a@umc.example"},
    "licence": "Apache-2.0",
    "source_commit": "unversioned",
    "images": [{"variant": "cpu", "config_digest": CONFIG}],
}


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, **outputs: Any) -> StationKit:
    document = {**DOCUMENT, "outputs": {**DOCUMENT["outputs"], **outputs}}
    manifest = load_json(TrainManifest, canonical_json(document), what="train.yaml")
    monkeypatch.setattr(station_kit, "MANIFEST", canonical_json(manifest))
    monkeypatch.setattr(station_kit, "IMAGE", CONFIG)
    return StationKit.make(
        folder,
        {
            "kind": "analysis",
            "manifest_digest": digest_of(station_kit.MANIFEST),
            "image_config_digests": [CONFIG],
            "runs.runs": 20,
            "runs.strategies": ["none"],
            "runs.hyperparameters": {},
            "release.tensors": None,
            "release.trust_statement": None,
            "release.metrics": [],
            "release.tables": ["findings", "ends"],
            "release.minimum_cell_count": 1,
            "release.minimum_patients_per_metric": 1,
        },
    )


def nothing_is_fetched_or_loaded(kit: StationKit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a train without a program has no image")

    monkeypatch.setattr(kit.launcher, "load_image", refuse)
    monkeypatch.setattr(kit.shelf, "fetch", refuse)


def training(kit: StationKit) -> tuple[int, int]:
    """How many patients without and with the finding the training split has; which, the station's own key decides."""
    (data,) = kit.warm.cohorts()
    there = load(data).patients_by_split[Split.TRAINING]
    found = [number % 2 for number in range(40) if patient(number) in there]
    assert len(found) == len(there)
    return found.count(0), found.count(1)


def test_the_station_counts_its_own_clinical_data_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = make(tmp_path, monkeypatch)
    nothing_is_fetched_or_loaded(kit, monkeypatch)
    envelope = kit.ready(**{**ORDER, "image_config_digest": CONFIG})
    (data,) = kit.warm.cohorts()
    # Nobody reads an image, so none is decoded.
    assert list((data / "images").iterdir()) == []
    reply = analyse(kit, envelope)
    assert reply.status is Status.RELEASED, reply
    negative, positive = training(kit)
    assert reply.tables["findings"] == [[negative], [positive]]
    assert reply.tables["ends"] == [[negative + positive], [0], [0], [0], [0], [0]]
    assert analyse(kit, envelope, attempt=2) == reply
    assert not kit.sandbox.started
    events = kit.events()
    assert {"container-started", "container-ended", "image-fetched"}.isdisjoint(events)
    assert events.count("counting-started") == 1
    kit.message(envelope, Kind.FINISH, 0)
    assert list(kit.paths.cohorts.iterdir()) == []
    kit.close()


def test_a_value_outside_its_column_is_a_patient_without_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = {"name": "pneumonia", "type": "category", "categories": ["0", "2"], "source": "clinical"}
    kit = make(tmp_path, monkeypatch, rows={"columns": [column]})
    envelope = kit.ready(**{**ORDER, "image_config_digest": CONFIG})
    reply = analyse(kit, envelope)
    negative, positive = training(kit)
    assert reply.tables["ends"] == [[negative], [0], [0], [0], [0], [positive]]
    assert reply.tables["findings"] == [[negative], [0]]
    kit.close()


def test_it_counts_once_an_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = make(tmp_path, monkeypatch)
    refused = kit.prepare(kit.order(**{**ORDER, "image_config_digest": CONFIG, "rounds": 2}))
    assert (refused.status, refused.code) == (Status.REFUSED, RefusalCode.ORDER_BEYOND_POLICY)
    kit.close()
