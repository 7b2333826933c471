"""Attack: feed what a train marked back to the station, as a mask for the next train to learn from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import ct_case
from intake_kit import folder_of
from prediction_documents import LUNGS, ORIGIN

from policies.errors import RefusedError
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.quarantine import Review
from station.intake.settings import IntakeSettings
from station.predictions.maker import ObjectMaker, images_of
from station.predictions.model import Wanted


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    with Intake(init_intake(tmp_path / "home"), IntakeSettings()) as opened:
        yield opened


def prediction(folder: Path) -> bytes:
    maker = ObjectMaker()
    images = images_of(maker, ct_case(folder, 0))
    shape = (images.header.columns, images.header.rows, len(images.planes))
    wanted = Wanted(prediction=LUNGS, images=images, origin=ORIGIN, shape=shape)
    made = maker.segment(wanted, bytes(int(np.prod(shape))))
    maker.close()
    return made


def test_it_stays_in_quarantine_and_no_person_can_let_it_in(intake: Intake, tmp_path: Path) -> None:
    made = prediction(tmp_path)
    report = intake.import_folder(folder_of(tmp_path, made), "ct")
    assert (report.accepted, report.quarantined) == (0, {"own-prediction": 1})
    (file,) = intake.quarantine.files("own-prediction")
    with pytest.raises(RefusedError, match="own-prediction"):
        intake.quarantine.release(file.id, Review("steward", "it looked good"))


def test_a_mask_that_people_drew_is_taken_as_before(intake: Intake, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.dcm"
    drawn.write_bytes(prediction(tmp_path))
    dataset = pydicom.dcmread(drawn)
    dataset.Manufacturer, dataset.ContentQualification = "3D Slicer", "RESEARCH"
    dataset.save_as(drawn)
    report = intake.import_folder(folder_of(tmp_path, drawn.read_bytes()), "ct")
    assert "own-prediction" not in report.quarantined
