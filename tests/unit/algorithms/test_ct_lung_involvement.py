"""The lung train's measurements against chests whose disease is known, however they are cut, and on real scans."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from lung_kit import CONFIG, Ball, Chest, Scanner, points, scan, truth, write_patient

import train_images
from algorithms.ct_lung_involvement.grid import blocks_of
from algorithms.ct_lung_involvement.lungs import NoLungsError, find_lungs
from algorithms.ct_lung_involvement.measuring import Involvement, Settings, measure
from algorithms.ct_lung_involvement.patient import row_of
from algorithms.one_patient import NoRowError, Patient, Volume, write_row
from policies.documents import load_yaml_file
from policies.manifest import TrainManifest

FOLDER = Path(train_images.__file__).parent / "ct-lung-involvement"
COARSE = Scanner(spacing_mm=(2.5, 2.5, 4.0))
SICK = Chest(
    (
        Ball(80, -30, -30, 50, -500),
        Ball(-80, -20, -10, 45, -500),
        Ball(80, 0, 50, 20, 30),
        Ball(-70, -20, 60, 15, 30),
    )
)


@pytest.fixture(scope="module")
def sick() -> Volume:
    return scan(SICK, COARSE)


@pytest.fixture(scope="module")
def measured(sick: Volume) -> Involvement:
    return measure(sick, Settings())


def test_involvement_is_what_the_chest_was_made_with_overall_and_in_each_third(measured: Involvement) -> None:
    known, found = truth(SICK), measured
    assert found.lungs.ground_glass == pytest.approx(known.ground_glass, abs=0.02)
    assert found.lungs.consolidation == pytest.approx(known.consolidation, abs=0.003)
    for third, (ground_glass, consolidation) in zip(
        (found.basal, found.middle, found.apical), known.thirds, strict=True
    ):
        assert third is not None
        assert third.ground_glass == pytest.approx(ground_glass, abs=0.03)
        assert third.consolidation == pytest.approx(consolidation, abs=0.01)
        assert third.dark + third.aerated + third.involved == pytest.approx(1)
    assert len({round(solid, 2) for _, solid in known.thirds}) > 1, "thirds that differ, or the check is none"
    assert found.volume_ml == pytest.approx(known.volume_ml, rel=0.02)
    lungs = found.lungs
    assert lungs.dark + lungs.aerated + lungs.involved == pytest.approx(1)
    assert not found.cut_off


def test_a_healthy_chest_has_no_disease_and_a_lung_is_its_own_and_no_airway_table_or_bowel() -> None:
    volume = scan(Chest(), COARSE)
    found = measure(volume, Settings())
    assert found.lungs.involved < 0.01
    grid = blocks_of(volume)
    lungs = find_lungs(grid, closing_mm=30, rim_mm=2.5)
    real = Chest().in_lung(points(grid.affine, grid.hounsfield.shape))
    dice = 2 * (real & lungs.whole).sum() / (real.sum() + lungs.whole.sum())
    assert dice > 0.985
    assert found.lungs.dark < 0.01
    x, y, z = points(grid.affine, grid.hounsfield.shape)
    trachea = (x**2 + (y + 20) ** 2 <= 8**2) & (z > 45) & (z < 120)
    assert np.mean(lungs.whole[trachea]) < 0.05


@pytest.mark.parametrize(
    ("order", "mirrored"),
    [((0, 1, 2), (True, True, False)), ((2, 0, 1), (False, False, True)), ((1, 2, 0), (True, False, True))],
)
def test_the_order_and_direction_of_axes_change_nothing(
    sick: Volume, measured: Involvement, order: tuple[int, int, int], mirrored: tuple[bool, bool, bool]
) -> None:
    voxels, affine = sick.voxels.transpose(order), sick.affine[:, [*order, 3]].copy()
    for axis in np.flatnonzero(mirrored):
        voxels = np.flip(voxels, axis)
        affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
        affine[:3, axis] *= -1
    assert measure(Volume(voxels, affine), Settings()) == measured


@pytest.mark.parametrize(
    "scanner",
    [
        Scanner(
            spacing_mm=(2.5, 2.5, 4.0), turned_deg=(12, 8), width_mm=(440, 380), bottom_mm=-180, top_mm=180
        ),
        Scanner(spacing_mm=(2.1, 2.1, 8.0)),
        Scanner(spacing_mm=(2.5, 3.5, 3.0)),
    ],
    ids=["oblique", "thick slices", "no cubes"],
)
def test_another_scanner_finds_the_same(measured: Involvement, scanner: Scanner) -> None:
    one, other = measured, measure(scan(SICK, scanner), Settings())
    assert other.lungs.ground_glass == pytest.approx(one.lungs.ground_glass, abs=0.025)
    assert other.lungs.consolidation == pytest.approx(one.lungs.consolidation, abs=0.005)
    assert other.volume_ml == pytest.approx(one.volume_ml, rel=0.02)
    assert one.basal is not None
    assert other.basal is not None
    assert other.basal.involved == pytest.approx(one.basal.involved, abs=0.04)


def test_consolidation_that_reaches_the_chest_wall_counts_in_part_by_the_closing_and_not_at_all_without() -> (
    None
):
    chest = Chest((Ball(138, 0, 0, 20, 30), Ball(-130, -30, 10, 20, 30), Ball(-80, -72, 20, 25, 30)))
    volume, known = scan(chest, COARSE), truth(chest)
    without = measure(volume, Settings(closing_mm=0)).lungs.consolidation
    closed = measure(volume, Settings(closing_mm=30)).lungs.consolidation
    assert without < 0.1 * known.consolidation
    assert 0.2 * known.consolidation < closed < known.consolidation


def test_lungs_that_the_scan_cuts_off_have_no_thirds() -> None:
    found = measure(scan(SICK, replace(COARSE, top_mm=40.0)), Settings())
    assert found.cut_off
    assert (found.apical, found.middle, found.basal) == (None, None, None)
    assert found.lungs.ground_glass > 0.1


@pytest.mark.parametrize(
    "volume",
    [
        scan(Chest(lungs=False), Scanner(spacing_mm=(4.0, 4.0, 5.0))),
        Volume(np.full((40, 40, 20), -1000, np.int16), np.diag([4.0, 4.0, 5.0, 1.0])),
        Volume(np.full((40, 40, 20), 40, np.int16), np.diag([4.0, 4.0, 5.0, 1.0])),
    ],
    ids=["bowel gas, a trachea and a table", "air", "tissue"],
)
def test_a_scan_without_lungs_is_an_error_of_its_own(volume: Volume) -> None:
    with pytest.raises(NoLungsError):
        measure(volume, Settings())


def test_lungs_that_are_rim_alone_are_none() -> None:
    """A sheet of air as thick as two rims: nothing of it is counted, and there is nothing to divide by."""
    voxels = np.full((80, 80, 60), 40, np.int16)
    voxels[10:70, 38:43, 5:55] = -850
    with pytest.raises(NoLungsError):
        measure(Volume(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), Settings(rim_mm=6.0, closing_mm=0.0))


def test_a_row_is_one_of_its_manifest_and_of_several_scans_the_worst_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Scanner(spacing_mm=(4.0, 4.0, 5.0))
    scans = [
        scan(chest, scanner)
        for chest, scanner in (
            (Chest(), small),
            (SICK, small),
            (SICK, replace(small, top_mm=30.0)),
            (Chest(lungs=False), small),
        )
    ]
    write_patient(tmp_path, *scans)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHT_DATA", str(tmp_path))
    write_row(row_of)
    row = json.loads((tmp_path / "reply" / "row.json").read_text())
    schema = load_yaml_file(TrainManifest, FOLDER / "train.yaml").outputs.rows
    assert schema is not None
    assert schema.read(row) == row
    assert row["coverage"] == "whole"
    assert row["involved_share"] == pytest.approx(measure(scans[1], Settings()).lungs.involved, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"ground_glass_from_hu": -500, "consolidation_from_hu": -500}, "SETTINGS"),
        ({"ground_glass_from_hu": -950}, "SETTINGS"),
        ({}, "NO_LUNGS"),
    ],
)
def test_what_can_be_expected_to_go_wrong_is_a_declared_error(
    tmp_path: Path, config: dict[str, float], code: str
) -> None:
    write_patient(tmp_path, Volume(np.full((40, 40, 20), 40, np.int16), np.diag([4.0, 4.0, 5.0, 1.0])))
    with pytest.raises(NoRowError) as caught:
        row_of(Patient(tmp_path, {**CONFIG, **config}))
    manifest = load_yaml_file(TrainManifest, FOLDER / "train.yaml")
    assert caught.value.code == code
    assert code in manifest.error_codes


def test_defaults_of_the_manifest_are_those_that_were_tried() -> None:
    defaults = {
        name: spec.default
        for name, spec in load_yaml_file(TrainManifest, FOLDER / "train.yaml").hyperparameters.items()
    }
    assert Settings(**defaults) == Settings()
    assert defaults == CONFIG


def _series(folder: Path) -> Volume:
    """A real series, as its files say it lies."""
    slices = sorted((pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=_height)
    steps = [float(step) for step in slices[0].PixelSpacing]
    affine = np.diag([-steps[1], -steps[0], _height(slices[1]) - _height(slices[0]), 1.0])
    stack = np.stack(
        [each.pixel_array * float(each.RescaleSlope) + float(each.RescaleIntercept) for each in slices]
    )
    return Volume(np.clip(stack, -1024, 3071).astype(np.int16).transpose(2, 1, 0), affine)


def _height(dataset: pydicom.Dataset) -> float:
    return float(dataset.ImagePositionPatient[2])


def test_a_real_chest_has_plausible_lungs_and_a_real_abdomen_none(shared_data: Path) -> None:
    found = measure(_series(shared_data / "ct" / "lung-pet-ct-dx-A0001"), Settings())
    # A man with one tumour of some centimetres in the right upper lobe, scanned in inspiration; nothing else is wrong with his lungs.
    assert 5000 < found.volume_ml < 6200
    assert 0.85 < found.lungs.aerated < 0.95
    assert 0.05 < found.lungs.ground_glass < 0.10
    assert 0.005 < found.lungs.consolidation < 0.02
    assert not found.cut_off
    assert found.apical is not None
    assert found.basal is not None
    assert found.apical.involved > found.basal.involved
    with pytest.raises(NoLungsError):
        measure(_series(shared_data / "ct" / "totalsegmentator-example"), Settings())
