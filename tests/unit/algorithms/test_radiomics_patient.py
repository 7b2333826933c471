"""The radiomics train's row: of the lesion that the hospital drew, whatever the order of axes, and of the largest of several."""

import json
from pathlib import Path

import numpy as np
import pytest
from lung_kit import Ball, Chest, Scanner, points, scan, write_patient

import train_images
from algorithms.one_patient import NoRowError, Patient, Volume, write_row
from algorithms.radiomics.features import FEATURES, Processing
from algorithms.radiomics.patient import row_of
from policies.documents import load_yaml_file
from policies.manifest import TrainManifest

FOLDER = Path(train_images.__file__).parent / "radiomics"
CONFIG = {"spacing_mm": 2.0, "bin_width_hu": 25.0}
SCANNER = Scanner(spacing_mm=(2.0, 2.0, 3.0), bottom_mm=0.0, top_mm=90.0)
LARGE, SMALL = Ball(80, 0, 50, 18, 30), Ball(80, 0, 50, 9, -400)


def lesion(ball: Ball) -> tuple[Volume, np.ndarray]:
    """A scan and the label map of its one lesion."""
    volume = scan(Chest((ball,)), SCANNER)
    return volume, ball.holds(points(volume.affine, SCANNER.shape())).astype(np.uint8)


@pytest.fixture(scope="module")
def large() -> tuple[Volume, np.ndarray]:
    return lesion(LARGE)


def asked(folder: Path, *scans: tuple[Volume, np.ndarray]) -> Patient:
    write_patient(folder, *(volume for volume, _ in scans), labels=tuple(labels for _, labels in scans))
    return Patient(folder, CONFIG)


def test_a_row_is_one_of_its_manifest_and_describes_the_largest_lesion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: tuple[Volume, np.ndarray]
) -> None:
    empty = (large[0], large[1] * 0)
    asked(tmp_path, empty, lesion(SMALL), large)
    head = tmp_path / "request" / "head.json"
    head.write_text(json.dumps({"type": "analyse", "config": CONFIG}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    write_row(row_of)
    row = json.loads((tmp_path / "reply" / "row.json").read_text())
    schema = load_yaml_file(TrainManifest, FOLDER / "train.yaml").outputs.rows
    assert schema is not None
    assert schema.read(row) == row
    assert set(row) == {"lesion", *FEATURES}
    assert row["lesion"] == "described"
    assert row["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.08)
    assert row["max_diameter_mm"] == pytest.approx(36, abs=5)


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_the_order_and_direction_of_axes_change_nothing(
    tmp_path: Path, large: tuple[Volume, np.ndarray], order: tuple[int, int, int]
) -> None:
    volume, labels = large
    affine = volume.affine[:, [*order, 3]].copy()
    voxels, turned = volume.voxels.transpose(order), labels.transpose(order)
    if np.linalg.det(affine[:3, :3]) < 0:
        voxels, turned = np.flip(voxels, 0), np.flip(turned, 0)
        affine[:3, 3] += affine[:3, 0] * (voxels.shape[0] - 1)
        affine[:3, 0] *= -1
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one = dict(row_of(asked(tmp_path / "one", large)))
    other = dict(row_of(asked(tmp_path / "other", (Volume(voxels, affine), turned))))
    assert other.pop("lesion") == one.pop("lesion") == "described"
    assert other == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize(("label", "said"), [(2, "none"), (0, "none"), (1, "too-small")])
def test_a_patient_without_features_has_a_row_that_says_so(
    tmp_path: Path, large: tuple[Volume, np.ndarray], label: int, said: str
) -> None:
    labels = large[1] * 0
    labels[150, 80, 10] = label
    row = row_of(asked(tmp_path, (large[0], labels)))
    schema = load_yaml_file(TrainManifest, FOLDER / "train.yaml").outputs.rows
    assert schema is not None
    assert schema.read(row) == row
    assert row == {"lesion": said, **dict.fromkeys(FEATURES)}


def test_a_cohort_without_masks_has_no_lesions_and_a_broken_file_no_row(
    tmp_path: Path, large: tuple[Volume, np.ndarray]
) -> None:
    write_patient(tmp_path, large[0])
    assert row_of(Patient(tmp_path, CONFIG))["lesion"] == "none"
    (tmp_path / "images" / "0.nii").write_bytes(b"no volume")
    with pytest.raises(NoRowError) as caught:
        row_of(Patient(tmp_path, CONFIG))
    assert caught.value.code in load_yaml_file(TrainManifest, FOLDER / "train.yaml").error_codes


def test_defaults_of_the_manifest_are_those_that_were_tried() -> None:
    specs = load_yaml_file(TrainManifest, FOLDER / "train.yaml").hyperparameters
    assert Processing(**{name: spec.default for name, spec in specs.items()}) == Processing()
    assert {name: spec.default for name, spec in specs.items()} == CONFIG
