"""Masks on their way to the handover: NIfTI files aligned to a CT series, DICOM Segmentations, over the whole of intake."""

import gzip
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pytest
from clinical_kit import (
    CT_PATIENT,
    CT_STUDY,
    affine_of,
    ct_series,
    nifti,
    segmentation,
    slices_of,
    two_labels,
)
from numpy.typing import NDArray
from pydicom import dcmread

from policies.documents import digest_of
from station.handover import (
    InstancesContent,
    LabelRecord,
    LabelsContent,
    label_path,
    load_public_key,
    read_handover,
)
from station.intake.clinical.labels.desk import HeldLabel, LabelsRefusedError, LabelsReport
from station.intake.clinical.labels.faults import LabelFault
from station.intake.clinical.labels.table import LabelLine
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from train_images.phantoms import PhantomSeries

NAMES = ("lung", "nodule")


@pytest.fixture
def paths(tmp_path: Path) -> IntakePaths:
    return init_intake(tmp_path / "home")


@pytest.fixture
def series(tmp_path: Path) -> PhantomSeries:
    return ct_series(tmp_path / "ct")


@pytest.fixture
def intake(paths: IntakePaths, series: PhantomSeries) -> Iterator[Intake]:
    with Intake(paths) as opened:
        assert opened.import_folder(series.files[0].parent, "ct").accepted == len(series.files)
        yield opened


def labels(paths: IntakePaths) -> list[LabelRecord]:
    entries = read_handover(paths.handover, load_public_key(paths.handover_public_key))
    found = [entry.content for entry in entries if isinstance(entry.content, LabelsContent)]
    return [record for content in found for record in content.labels]


def held(intake: Intake, data: bytes, line: int = 2, **changes: object) -> HeldLabel:
    part, digest = intake.labels.new_part(), digest_of(data)
    part.write_bytes(data)
    intake.labels.hold(part, digest)
    row = {
        "line": line, "file": "mask.nii", "patient_id": CT_PATIENT.patient_id, "issuer": "",
        "accession": CT_STUDY.accession, "series_instance_uid": "", "names": NAMES, **changes,
    }  # fmt: skip
    return HeldLabel(LabelLine(**row), digest)  # type: ignore[arg-type]


def take(intake: Intake, data: bytes, **changes: object) -> LabelsReport:
    return intake.import_masks("ct", [held(intake, data, **changes)], by="steward")


def fault_of(intake: Intake, data: bytes, **changes: object) -> LabelFault:
    with pytest.raises(LabelsRefusedError) as caught:
        take(intake, data, **changes)
    (problem,) = caught.value.problems
    return problem.fault


def voxels_of(paths: IntakePaths, record: LabelRecord) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    data = label_path(paths.handover, record.file).read_bytes()
    assert digest_of(data) == record.file
    assert len(data) == record.size_bytes
    image = nibabel.Nifti1Image.from_bytes(data)
    return np.asanyarray(image.dataobj), image.affine


def test_a_mask_is_handed_over_on_the_grid_of_its_series(
    intake: Intake, paths: IntakePaths, series: PhantomSeries
) -> None:
    mask = two_labels(series)
    data = nifti(mask, affine_of(series), text="Testpatient Eva 5551212")
    assert b"Testpatient" in data
    report = take(intake, gzip.compress(data))
    assert (report.rows, report.handed_over, report.unchanged) == (1, 1, 0)
    (record,) = labels(paths)
    assert (record.format, record.names, record.collection) == ("nifti", NAMES, "ct")
    voxels, affine = voxels_of(paths, record)
    assert np.array_equal(voxels, mask.transpose(2, 1, 0))
    assert voxels.dtype == np.uint8
    assert np.allclose(affine, affine_of(series), atol=1e-3)
    stored = label_path(paths.handover, record.file)
    assert b"Testpatient" not in stored.read_bytes()
    assert stored.stat().st_mode & 0o777 == 0o640
    (instance, *_) = instances(paths)
    assert (record.patient, record.study_uid, record.series_uid) == (
        instance.patient, instance.study_uid, instance.series_uid,
    )  # fmt: skip
    assert list(paths.labels.iterdir()) == []


def instances(paths: IntakePaths) -> list:  # type: ignore[type-arg]
    entries = read_handover(paths.handover, load_public_key(paths.handover_public_key))
    found = [entry.content for entry in entries if isinstance(entry.content, InstancesContent)]
    return [record for content in found for record in content.instances]


def test_again_changes_nothing_and_a_correction_replaces(
    intake: Intake, paths: IntakePaths, series: PhantomSeries
) -> None:
    mask, affine = two_labels(series), affine_of(series)
    take(intake, nifti(mask, affine))
    assert take(intake, nifti(mask, affine, text="drawn again")).unchanged == 1
    assert len(labels(paths)) == 1
    corrected = mask.copy()
    corrected[0, 0, 0] = 1
    assert take(intake, nifti(corrected, affine)).handed_over == 1
    assert len({record.file for record in labels(paths)}) == 2
    assert intake.labels.status().handed_over == 1


def test_a_mask_that_does_not_lie_on_its_series_is_refused(
    intake: Intake, paths: IntakePaths, series: PhantomSeries
) -> None:
    mask, affine = two_labels(series), affine_of(series)
    moved, stretched, turned = affine.copy(), affine.copy(), affine.copy()
    moved[0, 3] += 15.0
    stretched[:3, 2] *= 1.1
    turned[:2, :2] = np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]) @ turned[:2, :2]
    for wrong in (moved, stretched, turned):
        assert fault_of(intake, nifti(mask, wrong)) is LabelFault.GRID_DIFFERS
    good = nifti(mask, affine)
    nowhere = good[:280] + np.full(12, np.nan, "<f4").tobytes() + good[328:]
    assert fault_of(intake, nowhere) is LabelFault.GRID_DIFFERS
    for shape in (mask[:-1], mask[:, :-1], np.concatenate([mask, mask])):
        assert fault_of(intake, nifti(shape, affine)) is LabelFault.SHAPE_DIFFERS
    assert labels(paths) == []
    assert not (paths.handover / "labels").exists()


def test_values_must_be_whole_and_have_a_name(intake: Intake, series: PhantomSeries) -> None:
    mask, affine = two_labels(series), affine_of(series)
    half, negative, nan = (mask.astype(np.float32) for _ in range(3))
    half[0, 0, 0], negative[0, 0, 0], nan[0, 0, 0] = 0.5, -1, np.nan
    for wrong in (half, negative, nan):
        assert fault_of(intake, nifti(wrong, affine)) is LabelFault.NOT_WHOLE_NUMBERS
    third = mask.copy()
    third[0, 0, 0] = 3
    assert fault_of(intake, nifti(third, affine)) is LabelFault.VALUE_WITHOUT_NAME
    assert fault_of(intake, nifti(mask, affine), names=("lung",)) is LabelFault.VALUE_WITHOUT_NAME
    for names in (("lung", "lung"), ("Lung", "nodule"), ("lung", "nodule of Eva"), ()):
        assert fault_of(intake, nifti(mask, affine), names=names) is LabelFault.NAMES_WRONG


def test_a_file_that_is_no_whole_nifti_is_refused(intake: Intake, series: PhantomSeries) -> None:
    good = nifti(two_labels(series), affine_of(series))
    scaled = bytearray(good)
    scaled[112:116] = np.float32(2.0).tobytes()
    for data, fault in (
        (b"", LabelFault.NOT_NIFTI),
        (b"secret" * 100, LabelFault.NOT_NIFTI),
        (good[:-1], LabelFault.NOT_NIFTI),
        (good + b"x", LabelFault.NOT_NIFTI),
        (gzip.compress(good)[:-20], LabelFault.NOT_NIFTI),
        (b"\x1f\x8b" + bytes(600), LabelFault.NOT_NIFTI),
        (good[:344] + b"ni1\x00" + good[348:], LabelFault.NOT_NIFTI),
        (good[:70] + b"\xff\x7f" + good[72:], LabelFault.NOT_NIFTI),
        (good[:70] + b"\x80\x00" + good[72:], LabelFault.VOXEL_TYPE),
        (bytes(scaled), LabelFault.VOXEL_TYPE),
        (good[:108] + np.float32(np.nan).tobytes() + good[112:], LabelFault.NOT_NIFTI),
        (good[:108] + np.float32(1e30).tobytes() + good[112:], LabelFault.NOT_NIFTI),
    ):
        assert fault_of(intake, data) is fault


def test_a_bomb_is_not_inflated(intake: Intake, series: PhantomSeries) -> None:
    """A gzip of a gigabyte behind a good header costs what the series has, not what the bomb has."""
    good = nifti(two_labels(series), affine_of(series))
    bomb = BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        file.write(good)
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert len(bomb.getvalue()) < 1 << 20
    assert fault_of(intake, bomb.getvalue()) is LabelFault.NOT_NIFTI
    huge = bytearray(good)
    huge[40:48] = np.array([3, 32767, 32767, 32767], "<i2").tobytes()
    assert fault_of(intake, gzip.compress(bytes(huge))) is LabelFault.SHAPE_DIFFERS


def test_a_row_must_name_a_series_that_is_here(
    intake: Intake, paths: IntakePaths, series: PhantomSeries
) -> None:
    data = nifti(two_labels(series), affine_of(series))
    original = str(slices_of(series)[0].SeriesInstanceUID)
    assert fault_of(intake, data, patient_id="1") is LabelFault.PATIENT_UNKNOWN
    assert fault_of(intake, data, issuer="elsewhere") is LabelFault.PATIENT_UNKNOWN
    assert fault_of(intake, data, accession="C9") is LabelFault.STUDY_UNKNOWN
    assert fault_of(intake, data, series_instance_uid="1.2.3") is LabelFault.SERIES_UNKNOWN
    with pytest.raises(LabelsRefusedError):
        intake.import_masks("cxr", [held(intake, data)], by="steward")
    assert take(intake, data, accession="", series_instance_uid=original).handed_over == 1


def test_one_wrong_mask_refuses_all_and_a_trial_tells_all(
    intake: Intake, paths: IntakePaths, series: PhantomSeries
) -> None:
    good = nifti(two_labels(series), affine_of(series))
    rows = [held(intake, good, 2), held(intake, good, 3, accession="C9"), held(intake, b"x", 4)]
    with pytest.raises(LabelsRefusedError, match=r"line 3: .*2 rows are wrong"):
        intake.import_masks("ct", rows, by="steward")
    assert labels(paths) == []
    rows = [held(intake, good, 2), held(intake, good, 3), held(intake, b"x", 4)]
    report = intake.import_masks("ct", rows, by="steward", dry_run=True)
    assert [(found.line, found.fault) for found in report.problems] == [
        (3, LabelFault.STANDS_TWICE), (4, LabelFault.NOT_NIFTI),
    ]  # fmt: skip
    assert labels(paths) == []
    assert list(paths.labels.iterdir()) == []


def test_a_segmentation_is_handed_over_as_a_mask_on_its_remapped_series(
    intake: Intake, paths: IntakePaths, series: PhantomSeries, tmp_path: Path
) -> None:
    folder = tmp_path / "seg"
    folder.mkdir()
    (folder / "1.dcm").write_bytes(segmentation(series, two_labels(series)))
    before = len(instances(paths))
    assert intake.import_folder(folder, "ct").accepted == 1
    (record,) = labels(paths)
    assert (record.format, record.names) == ("dicom-seg", NAMES)
    (image, *_) = instances(paths)
    assert (record.patient, record.study_uid, record.series_uid) == (
        image.patient,
        image.study_uid,
        image.series_uid,
    )
    assert len(instances(paths)) == before, "a mask is no image"
    data = label_path(paths.handover, record.file).read_bytes()
    assert digest_of(data) == record.file
    stored = dcmread(BytesIO(data))
    assert b"Testpatient" not in data
    assert str(stored.ReferencedSeriesSequence[0].SeriesInstanceUID) == record.series_uid
    here = {instance.sop_instance_uid for instance in instances(paths)}
    assert {
        str(item.ReferencedSOPInstanceUID)
        for item in stored.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    } <= here
    assert np.array_equal(stored.pixel_array.sum(), (two_labels(series) > 0).sum()), (
        "the pixels are the ones that were drawn"
    )
    assert intake.import_folder(folder, "ct").duplicates == 1
    assert len(labels(paths)) == 1


def test_a_segmentation_waits_for_its_series(
    paths: IntakePaths, series: PhantomSeries, tmp_path: Path
) -> None:
    folder = tmp_path / "seg"
    folder.mkdir()
    (folder / "1.dcm").write_bytes(segmentation(series, two_labels(series)))
    with Intake(paths) as intake:
        assert intake.import_folder(folder, "ct").accepted == 1
        assert labels(paths) == []
        assert intake.labels.status().waiting == {"series-unknown": 1}
        intake.import_folder(series.files[0].parent, "ct")
        assert intake.labels.status().waiting == {}
    assert len(labels(paths)) == 1
