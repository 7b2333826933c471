"""What is made of a label map and of numbers: valid DICOM, in the right place voxel by voxel, marked for research only."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from cohort_files import case, encoded, picture, radiograph
from ct_files import SMALL, ct_case, phantom
from numpy.typing import NDArray
from prediction_documents import LUNGS, ORIGIN, SHARES, judged

from policies.documents import digest_of_file
from station.cohorts import CaseSource, SourceFile
from station.cohorts.decoding import DecoderPool
from station.cohorts.unusable import Unusable, UnusableImage
from station.cohorts.volumes import Volume, write_volume
from station.predictions.judging import shape_of
from station.predictions.maker import ObjectMaker, images_of
from station.predictions.model import MARK, Images, Wanted
from train_images.phantoms import CtFault, CtScanner

TURNED = {
    "axial": (0.0, 0.0),
    "oblique": (10.0, 5.0),
    "feet-first": (180.0, 0.0),
    "head-down": (-25.0, 170.0),
}


@pytest.fixture(scope="module")
def maker() -> Iterator[ObjectMaker]:
    maker = ObjectMaker()
    yield maker
    maker.close()


def scanned(folder: Path, turned: tuple[float, float]) -> CaseSource:
    scanner = CtScanner(
        slices=SMALL.slices,
        size_px=SMALL.size_px,
        pixel_mm=SMALL.pixel_mm,
        increment_mm=3.5,
        oblique_deg=turned,
    )
    series = phantom(folder / "series", scanner=scanner)
    files = tuple(SourceFile(path, digest_of_file(path)) for path in sorted(series.files))
    return CaseSource("2.25.7000", "PATIENT0", "2.25.5000", files, None, modality="CT")


def volume_of(source: CaseSource, path: Path) -> nibabel.Nifti1Image:
    with DecoderPool(size=1) as pool:
        assert isinstance(write_volume(source.files, path, pool), Volume)
    return nibabel.load(path)


def some_marks(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """No two slices, rows or columns alike; both segments; some slices with nothing."""
    marks = np.random.default_rng(3).integers(0, 3, shape, dtype=np.uint8)
    if len(shape) == 3:
        marks[:, :, ::4] = 0
    return marks


def wanted(images: Images, shape: tuple[int, ...], **changes: Any) -> Wanted:
    return Wanted(**{"prediction": LUNGS, "images": images, "origin": ORIGIN, "shape": shape, **changes})


def in_the_patient(segmentation: pydicom.Dataset, number: int) -> NDArray[np.float64]:
    """Where the voxels of a segment lie, RAS millimetres, from the file's own frames."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(
        [float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient], (2, 3)
    )
    down, across = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    found = [np.zeros((0, 3))]
    for group, frame in zip(
        segmentation.PerFrameFunctionalGroupsSequence, np.atleast_3d(segmentation.pixel_array), strict=True
    ):
        if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        origin = np.array([float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient])
        rows, columns = np.nonzero(frame)
        found.append(origin + np.outer(columns * across, row) + np.outer(rows * down, column))
    return np.concatenate(found) * [-1, -1, 1]


@pytest.mark.parametrize("turned", TURNED.values(), ids=TURNED.keys())
def test_every_voxel_lies_where_the_train_saw_it(
    tmp_path: Path, maker: ObjectMaker, turned: tuple[float, float]
) -> None:
    source = scanned(tmp_path, turned)
    image = volume_of(source, tmp_path / "volume.nii")
    shape = shape_of(tmp_path / "volume.nii")
    assert shape == image.shape
    marks = some_marks(shape)
    made = maker.segment(wanted(images_of(maker, source), shape), marks.tobytes())
    (tmp_path / "made.dcm").write_bytes(made)
    assert "Error" not in judged(tmp_path / "made.dcm")
    segmentation = pydicom.dcmread(tmp_path / "made.dcm")
    for number in (1, 2):
        places = in_the_patient(segmentation, number)
        indices = np.linalg.inv(image.affine) @ np.vstack((places.T, np.ones(len(places))))
        assert np.abs(indices[:3] - np.rint(indices[:3])).max() < 0.01
        again = np.zeros(shape, bool)
        again[tuple(np.rint(indices[:3]).astype(int))] = True
        assert np.array_equal(again, marks == number)
    # Each frame names the very instance at its place.
    at = {
        str(dataset.SOPInstanceUID): [float(v) for v in dataset.ImagePositionPatient]
        for dataset in (pydicom.dcmread(file.path) for file in source.files)
    }
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        named = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        assert at[str(named)] == pytest.approx(place, abs=1e-6)


def test_other_readers_see_the_same(tmp_path: Path, maker: ObjectMaker) -> None:
    source = scanned(tmp_path, TURNED["oblique"])
    image = volume_of(source, tmp_path / "volume.nii")
    marks = some_marks(image.shape)
    images = images_of(maker, source)
    (tmp_path / "made.dcm").write_bytes(maker.segment(wanted(images, image.shape), marks.tobytes()))
    read = highdicom.seg.segread(tmp_path / "made.dcm")
    uids = [plane.sop_instance_uid for plane in images.planes]
    planes = read.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=True)
    assert np.array_equal(planes.transpose(2, 1, 0), marks)
    # And the station's own, which reads masks that people drew.
    from station.cohorts.series import SliceHeader, arrange

    headers: list[SliceHeader] = [maker.read(file.path.read_bytes()).header for file in source.files]
    grid, _ = arrange(headers)
    with DecoderPool(size=1) as pool:
        ours = pool.mask(SourceFile(tmp_path / "made.dcm"), "dicom-seg", grid, {1: 1, 2: 2})
    assert not isinstance(ours, Unusable)
    assert np.array_equal(ours.transpose(2, 1, 0), marks)


def test_it_says_what_it_is_and_repeats_pseudonymous_names_alone(tmp_path: Path, maker: ObjectMaker) -> None:
    source = scanned(tmp_path, TURNED["axial"])
    images = images_of(maker, source)
    shape = (images.header.columns, images.header.rows, len(images.planes))
    (tmp_path / "made.dcm").write_bytes(maker.segment(wanted(images, shape), bytes(int(np.prod(shape)))))
    assert "Error" not in judged(tmp_path / "made.dcm")
    made, original = pydicom.dcmread(tmp_path / "made.dcm"), pydicom.dcmread(source.files[0].path)
    assert (made.SeriesDescription, made.ContentLabel, made.ContentQualification) == (
        MARK,
        "RESEARCH_ONLY",
        "RESEARCH",
    )
    assert [each.SegmentDescription for each in made.SegmentSequence] == [MARK, MARK]
    assert (made.PatientID, str(made.PatientName)) == ("PATIENT0", "PATIENT0^")
    assert original.PatientID not in (tmp_path / "made.dcm").read_bytes().decode("latin-1")
    assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == (
        original.StudyInstanceUID,
        original.FrameOfReferenceUID,
    )
    assert (made.SOPInstanceUID, made.SeriesInstanceUID) == ("2.25.82", "2.25.81")
    assert (made.ContentDate, made.ContentTime, made.PatientIdentityRemoved) == ("20260101", "120000", "YES")
    first, second = made.SegmentSequence
    assert (first.SegmentedPropertyTypeCodeSequence[0].CodeValue, second.SegmentLabel) == (
        "44029006",
        "right_lung",
    )
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ct-segmentation", "1.2.3")
    assert ORIGIN.image_config_digest in algorithm.AlgorithmParameters
    # Nothing was marked, and that is said of every image.
    assert int(made.NumberOfFrames) == 2 * len(images.planes)
    assert not made.pixel_array.any()


def test_numbers_become_a_measurement_report_of_every_image(tmp_path: Path, maker: ObjectMaker) -> None:
    source = ct_case(tmp_path, 0)
    images = images_of(maker, source)
    shape = (images.header.columns, images.header.rows, len(images.planes))
    numbers = {"involved": 12.5, "volume": 0.1 + 0.2}
    made = maker.measure(wanted(images, shape, prediction=SHARES, measured=numbers))
    (tmp_path / "made.dcm").write_bytes(made)
    assert "Error" not in judged(tmp_path / "made.dcm")
    report = highdicom.sr.srread(tmp_path / "made.dcm")
    (group,) = report.content.get_image_measurement_groups()
    found = {each.name.meaning: (each.value, each.unit.value) for each in group.get_measurements()}
    assert found == {"Involved share of the lungs": (12.5, "%"), "Volume": (pytest.approx(0.3), "mL")}
    assert len(group.source_images) == len(source.files)
    assert (group.tracking_identifier, report.SeriesDescription) == (MARK, MARK)
    assert (report.VerificationFlag, report.ContentQualification) == ("UNVERIFIED", "RESEARCH")
    # What was not measured is not there.
    one = maker.measure(wanted(images, shape, prediction=SHARES, measured={"volume": 1.0}))
    assert b"Involved share" not in one
    with pytest.raises(UnusableImage):
        maker.measure(wanted(images, shape, prediction=SHARES))


def test_a_radiograph_has_both_too(tmp_path: Path, maker: ObjectMaker) -> None:
    names = {"StudyInstanceUID": "2.25.5", "SeriesInstanceUID": "2.25.6", "PatientOrientation": ["L", "F"]}
    data = encoded(radiograph(picture(4), PatientID="Jansen", StudyDate="20200101", **names))
    source = case(tmp_path, 4, data=data)
    images = images_of(maker, source)
    marks = some_marks((20, 12))
    (tmp_path / "marks.dcm").write_bytes(maker.segment(wanted(images, marks.shape), marks.tobytes()))
    measured = wanted(images, marks.shape, prediction=SHARES, measured={"involved": 1.0})
    (tmp_path / "report.dcm").write_bytes(maker.measure(measured))
    for name in ("marks.dcm", "report.dcm"):
        assert "Error" not in judged(tmp_path / name)
        assert b"Jansen" not in (tmp_path / name).read_bytes()
    frames = pydicom.dcmread(tmp_path / "marks.dcm").pixel_array
    assert np.array_equal(frames[0] + 2 * frames[1], marks.T)


def test_equal_predictions_are_equal_bytes(tmp_path: Path, maker: ObjectMaker) -> None:
    images = images_of(maker, ct_case(tmp_path, 0))
    shape = (images.header.columns, images.header.rows, len(images.planes))
    asked, marks = wanted(images, shape), some_marks(shape).tobytes()
    other = ObjectMaker()
    assert maker.segment(asked, marks) == other.segment(asked, marks)
    report = wanted(images, shape, prediction=SHARES, measured={"volume": 1.0})
    assert maker.measure(report) == other.measure(report)
    other.close()


def test_what_is_no_prediction_of_these_images_is_refused(tmp_path: Path, maker: ObjectMaker) -> None:
    images = images_of(maker, ct_case(tmp_path, 0))
    shape = (images.header.columns, images.header.rows, len(images.planes))
    marks = some_marks(shape)
    marks[0, 0, 0] = 3
    with pytest.raises(UnusableImage, match="mask-invalid"):
        maker.segment(wanted(images, shape), marks.tobytes())
    for wrong in [(*shape[:2], shape[2] - 1), (shape[0] // 2, shape[1] * 2, shape[2])]:
        with pytest.raises(UnusableImage, match="mask-grid"):
            maker.segment(wanted(images, wrong), bytes(int(np.prod(wrong))))
    with pytest.raises(UnusableImage, match="mask-grid"):
        maker.segment(wanted(images, shape), bytes(7))


@pytest.mark.parametrize("fault", [CtFault.GAP, CtFault.DUPLICATE, CtFault.TILT])
def test_a_series_that_is_no_volume_is_marked_nowhere(
    tmp_path: Path, maker: ObjectMaker, fault: CtFault
) -> None:
    with pytest.raises(UnusableImage):
        images_of(maker, ct_case(tmp_path, 0, fault=fault))


def test_images_that_name_no_place_are_marked_nowhere(tmp_path: Path, maker: ObjectMaker) -> None:
    source = ct_case(tmp_path, 0)
    files = []
    for file in source.files:
        dataset = pydicom.dcmread(file.path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(file.path)
        files.append(SourceFile(file.path))
    with pytest.raises(UnusableImage, match="geometry"):
        images_of(maker, replace(source, files=tuple(files)))


def test_a_file_that_changed_is_not_referred_to(tmp_path: Path, maker: ObjectMaker) -> None:
    source = ct_case(tmp_path, 0)
    path = source.files[3].path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UnusableImage, match="digest"):
        images_of(maker, source)
    path.write_bytes(b"no DICOM")
    with pytest.raises(UnusableImage, match="not-dicom"):
        maker.read(path.read_bytes())
