"""A station in process whose hospital keeps predictions, with trains that mark, measure, lie or fail."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import station_kit
from cohort_files import encoded, picture, radiograph
from ct_files import hand_over
from prediction_documents import LUNGS, SHARES
from station_documents import as_yaml
from station_kit import StationKit
from station_simulators import Answered, honest

from policies.documents import canonical_json, digest_of
from policies.wire.instructions import Kind, StationReply, Status
from station.predictions.keeper import PredictionKeeper
from station.sandbox.spec import TrainRequest
from station.settings.predictions import PredictionSettings

PATIENTS = 9
SHAPE = (20, 12)
"""Of the kit's radiographs as a train reads them: columns, rows."""
DECLARED = [LUNGS.model_dump(mode="json"), SHARES.model_dump(mode="json")]

Says = Callable[[str], Answered]


def marks(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, SHAPE, dtype=np.uint8)


def says_both(case: str) -> Answered:
    """Marks that differ from case to case, and one of the two numbers."""
    return {"involved": 12.5}, {}, {"lungs": marks(sum(case.encode()))}


class Marks:
    """A train that is honest in its rounds and answers `predict` as it is told; remembers the cases it was asked about."""

    def __init__(self, says: Says = says_both) -> None:
        self.says = says
        self.asked: list[str] = []

    def __call__(self, request: TrainRequest, cohort: Path) -> Answered:
        if request.kind != "predict":
            return honest(request, cohort)
        assert request.case is not None
        self.asked.append(request.case)
        return self.says(request.case)


def predicting_manifest(declared: Any = None, modality: str = "DX") -> bytes:
    document = as_yaml(station_kit.MANIFEST)
    document["data"]["modalities"] = [modality]
    document["outputs"]["predictions"] = DECLARED if declared is None else declared
    return canonical_json(document)


def file_of(number: int) -> bytes:
    """A pseudonymised radiograph of that patient, as the catalogue has it."""
    names = {
        "SOPInstanceUID": f"2.25.{number + 2000}",
        "StudyInstanceUID": f"2.25.{number + 1}",
        "SeriesInstanceUID": f"2.25.{number + 1000}",
        "PatientID": f"NOT-THE-CATALOGUES-{number}",
        "PatientOrientation": ["L", "F"],
        "StudyDate": "20200102",
    }
    return encoded(radiograph(picture(number), **names))


def predicting_station(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: Mapping[str, object] | None = None,
    *,
    declared: Any = None,
    keep: bool = True,
    modality: str = "DX",
    **settings: Any,
) -> StationKit:
    """A station of nine patients, with a radiograph or a CT each; `keep` says whether its hospital named a folder."""
    monkeypatch.setattr(station_kit, "MANIFEST", predicting_manifest(declared, modality))
    monkeypatch.setattr(station_kit, "PATIENTS", range(1))
    chosen = folder / "predictions"
    if keep:
        chosen.mkdir()
        settings.setdefault("predictions", PredictionSettings(folder=str(chosen)))
    changes: dict[str, object] = {
        "manifest_digest": digest_of(station_kit.MANIFEST),
        "runs.runs": 20,
        "runs.releases": 200,
        "data.modalities": [modality],
        "data.minimum_patients": 3,
        "release.minimum_patients_per_metric": 1,
        "release.local_predictions": True,
        **(policy or {}),
    }
    kit = StationKit.make(folder, changes, **settings)
    kit.intake.removed(0)
    for number in range(1, PATIENTS + 1):
        if modality == "CT":
            hand_over(kit.intake, folder, number)
        else:
            kit.intake.instances(number, data=file_of(number))
    kit.intake.clinical(*range(1, PATIENTS + 1))
    kit.catalogue.sync()
    kit.sandbox.train = Marks()
    return kit


def keeper(kit: StationKit, keep_days: int = 365) -> PredictionKeeper:
    assert kit.predictions is not None
    return PredictionKeeper(
        kit.book, kit.predictions, kit.catalogue, modes=kit.settings.consent_modes,
        keep_for=timedelta(days=keep_days), clock=kit.clock,
    )  # fmt: skip


def one_round(kit: StationKit, **changes: object) -> tuple[bytes, list[StationReply]]:
    """A run of a round: trained, evaluated, finished; waits until nothing is asked of its train any more."""
    envelope = kit.ready(rounds=1, **changes)
    replies = [kit.message(envelope, kind)[0] for kind in (Kind.TRAIN, Kind.EVALUATE)]
    assert [reply.status for reply in replies] == [Status.RELEASED] * 2, replies
    replies.append(kit.message(envelope, Kind.FINISH)[0])
    settled(kit)
    return envelope, replies


def settled(kit: StationKit) -> None:
    """Wait until nothing is asked of a train any more, and what was made is kept or gone."""
    kit.until(lambda: not kit.warm.orders() and not kit.predicting.at_work)


def kept(kit: StationKit) -> list[Path]:
    """Every file in the hospital's folder."""
    return sorted(path for path in (kit.folder / "predictions").rglob("*") if path.is_file())
