"""A train in a real container marks CTs of a station; what lies in the hospital's folder is what it marked, on the right slices."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from prediction_documents import LUNGS, judged
from prediction_kit import kept, one_round, predicting_station
from sandbox_kit import DESCRIPTION, DOCKERFILE, build_image, store_image
from warm_kit import ImagesAreThere, RealSandbox

from policies.blobs import BlobFolder
from station.handover import instance_path
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import LauncherSettings

pytestmark = pytest.mark.docker

TAG = "pht-test-predictions:1"
APP = """
import json

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
listed = json.load(open("/train/data/datalist.json"))
images = {entry["case"]: entry["image"] for split in ("training", "validation") for entry in listed[split]}

@app.train()
def train(message, context):
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    moved = {name: Array(value + value.dtype.type(1) if value.dtype.kind == "f" else value) for name, value in arrays.items()}
    return Message(content=RecordDict({"arrays": ArrayRecord(moved), "metrics": MetricRecord({"loss": 0.5})}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    return Message(content=RecordDict({"metrics": MetricRecord({"auc": 0.75})}), reply_to=message)

@app.query("predict")
def predict(message, context):
    path = "/train/data/" + images[message.content["predict"]["case"]]
    shape = np.fromfile(path, "<i2", 4, offset=40)[1:4]
    voxels = np.memmap(path, "<i2", "r", 352, tuple(int(size) for size in shape), order="F")
    marks = np.where(voxels < -500, 1, np.where(voxels > 20, 2, 0)).astype(np.uint8)
    return Message(content=RecordDict({"arrays": ArrayRecord({"lungs": Array(marks)})}), reply_to=message)
"""


def test_each_slice_has_the_marks_that_its_own_pixels_call_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_image(TAG, DOCKERFILE, DESCRIPTION, **{"app.py": APP})
    declared = [LUNGS.model_dump(mode="json")]
    kit = predicting_station(tmp_path, monkeypatch, declared=declared, modality="CT")
    kit.paths.layers.mkdir(exist_ok=True)
    launcher = ImagesAreThere(tmp_path / "home", LauncherSettings(station="predicting", compute_uid=0))
    try:
        image = store_image(TAG, BlobFolder(kit.paths.layers))
        kit.launcher = launcher  # type: ignore[assignment]
        kit.sandbox = RealSandbox(TrainSandbox(launcher), image)  # type: ignore[assignment]
        kit.database.close()
        kit.open()
        one_round(kit)
        slices = {
            str(found.SOPInstanceUID): found
            for row in kit.book.there()
            for found in (pydicom.dcmread(instance_path(kit.intake.folder, file)) for file in row.sources)
        }
        files = kept(kit)
        assert len(files) >= 3
        for path in files:
            assert "Error" not in judged(path)
            made = pydicom.dcmread(path)
            seen = 0
            for group, frame in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True):
                named = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
                source = slices[str(named)]
                hounsfield = source.pixel_array.astype(int) * int(source.RescaleSlope) + int(
                    source.RescaleIntercept
                )
                number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
                expected = hounsfield < -500 if number == 1 else hounsfield > 20
                assert np.array_equal(frame.astype(bool), expected)
                assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
                seen += int(expected.sum())
            assert seen > 100
    finally:
        kit.close()
        launcher.remove_orphans()
