"""Masks beside volumes: on the volume's own grid exactly, however they were written, or refused."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
from cohort_files import KEY, warm_decoder
from ct_files import CT_DEFINITION, PEOPLE, ct_case, phantom
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from policies.documents import digest_of_file
from policies.splits import Split
from station.cohorts import (
    CaseSource,
    CohortDefinition,
    FrozenCohort,
    MaskSource,
    SourceFile,
    Unusable,
    freeze,
)
from station.cohorts.decoding import DecoderPool
from station.cohorts.volumes import Volume, write_volume
from train_images.phantoms import CtScanner, PhantomSeries

pytestmark = pytest.mark.filterwarnings("ignore")  # of highdicom and pydicom, when they write

DEFINITION = CT_DEFINITION.model_copy(update={"masks": ("lesion", "bone")})
OBLIQUE = CtScanner(slices=12, size_px=36, pixel_mm=(9.0, 8.0), increment_mm=9.0, oblique_deg=(10.0, 5.0))
ILL = next(
    number
    for number, person in enumerate(PEOPLE)
    if person.studies[0].pneumonia and KEY.split_of(f"PATIENT{number}") is Split.TRAINING
)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(size=1) as pool:
        yield pool


@pytest.fixture(scope="module", params=["axial", "oblique"])
def scan(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pool: DecoderPool
) -> tuple[PhantomSeries, Volume, nibabel.Nifti1Image]:
    folder = tmp_path_factory.mktemp("scan")
    scanner = {"scanner": OBLIQUE} if request.param == "oblique" else {}
    series = phantom(folder / "dicom", ILL, **scanner)
    volume = write_volume([SourceFile(path) for path in series.files], folder / "volume.nii", pool)
    assert isinstance(volume, Volume)
    return series, volume, nibabel.load(folder / "volume.nii")


def truth(series: PhantomSeries) -> NDArray[np.uint8]:
    """(slices, rows, columns): 1 where the nodule is, 2 in bone."""
    labels = np.where(series.hounsfield > 500, 2, 0).astype(np.uint8)
    labels[series.nodule] = 1
    assert {1, 2} <= set(labels.ravel().tolist())
    return labels


def segmentation(
    path: Path, series: PhantomSeries, masks: list[NDArray[np.bool_]], kind: str = "BINARY"
) -> Path:
    sources = [dcmread(file) for file in series.files]
    described = [
        SegmentDescription(
            segment_number=number,
            segment_label=f"segment {number}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Bone,
            algorithm_type="MANUAL",
        )
        for number, _ in enumerate(masks, 1)
    ]
    pixels = np.stack(masks, axis=-1).astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    if kind == "LABELMAP":
        pixels = sum(mask.astype(np.uint8) * number for number, mask in enumerate(masks, 1))
    Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


def nifti(path: Path, labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> Path:
    """(columns, rows, slices)."""
    nibabel.Nifti1Image(labels, affine).to_filename(path)
    return path


def read(pool: DecoderPool, path: Path, form: str, volume: Volume) -> NDArray[np.uint8] | Unusable:
    return pool.mask(SourceFile(path), form, volume.grid, {1: 1, 2: 2})


Scan = tuple[PhantomSeries, Volume, nibabel.Nifti1Image]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_dicom_segmentation_lies_where_it_was_drawn(
    scan: Scan, pool: DecoderPool, tmp_path: Path, kind: str
) -> None:
    """Written by highdicom, frames in its own order, empty ones left out."""
    series, volume, _ = scan
    labels = truth(series)
    path = segmentation(tmp_path / "seg.dcm", series, [labels == 1, labels == 2], kind)
    assert np.array_equal(read(pool, path, "dicom-seg", volume), labels)


def test_a_nifti_mask_lies_where_it_was_drawn_however_its_axes_run(
    scan: Scan, pool: DecoderPool, tmp_path: Path
) -> None:
    series, volume, image = scan
    labels = truth(series)
    straight = nibabel.Nifti1Image(labels.transpose(2, 1, 0), image.affine)
    for codes_ in ("LPS", "RAS", "SPL", "ARI", "LAS"):
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt(nibabel.aff2axcodes(image.affine)),
            nibabel.orientations.axcodes2ornt(codes_),
        )
        turned = straight.as_reoriented(turn)
        path = nifti(tmp_path / f"{codes_}.nii", np.asarray(turned.dataobj), turned.affine)
        assert np.array_equal(read(pool, path, "nifti", volume), labels)
    packed = tmp_path / "packed.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert np.array_equal(read(pool, packed, "nifti", volume), labels)


def test_a_mask_off_the_grid_is_refused(scan: Scan, pool: DecoderPool, tmp_path: Path) -> None:
    series, volume, image = scan
    labels = truth(series).transpose(2, 1, 0)
    shifted = image.affine.copy()
    shifted[0, 3] += 0.5
    finer = image.affine.copy()
    finer[:3, 0] *= 0.99
    turned = image.affine @ np.array([[0.99, -0.141, 0, 0], [0.141, 0.99, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for number, (voxels, affine) in enumerate(
        [
            (labels, shifted),
            (labels, finer),
            (labels, turned),
            (labels[:-1], image.affine),
            (labels, np.eye(4)),
        ]
    ):
        path = nifti(tmp_path / f"{number}.nii", voxels, affine)
        assert read(pool, path, "nifti", volume) is Unusable.MASK_GRID
    other = phantom(tmp_path / "other", ILL, scanner=replace(OBLIQUE, increment_mm=8.5))
    path = segmentation(tmp_path / "seg.dcm", other, [other.nodule | (other.hounsfield > 500)])
    assert read(pool, path, "dicom-seg", volume) is Unusable.MASK_GRID


def test_what_is_no_mask_is_refused(scan: Scan, pool: DecoderPool, tmp_path: Path) -> None:
    series, volume, image = scan
    labels = truth(series)
    overlapping = segmentation(tmp_path / "over.dcm", series, [labels > 0, labels == 2])
    assert read(pool, overlapping, "dicom-seg", volume) is Unusable.MASK_OVERLAP
    fractional = segmentation(tmp_path / "frac.dcm", series, [labels == 1], "FRACTIONAL")
    assert read(pool, fractional, "dicom-seg", volume) is Unusable.MASK_INVALID
    assert read(pool, series.files[0], "dicom-seg", volume) is Unusable.MASK_INVALID
    halves = nibabel.Nifti1Image(labels.transpose(2, 1, 0) * np.float32(0.5), image.affine)
    halves.to_filename(tmp_path / "half.nii")
    assert read(pool, tmp_path / "half.nii", "nifti", volume) is Unusable.MASK_INVALID
    whole = nifti(tmp_path / "whole.nii", labels.transpose(2, 1, 0), image.affine).read_bytes()
    for data in (b"", whole[:300], whole[:-40], b"\x1f\x8b" + b"\0" * 99, gzip.compress(b"\0" * (64 << 20))):
        (tmp_path / "damaged").write_bytes(data)
        assert read(pool, tmp_path / "damaged", "nifti", volume) in {
            Unusable.MASK_INVALID,
            Unusable.MASK_GRID,
        }


def with_masks(folder: Path, *masks: tuple[NDArray[np.bool_], str], number: int = ILL) -> CaseSource:
    case = ct_case(folder, number)
    series = phantom(folder / f"series-{number}", number)
    sources = []
    for index, (mask, name) in enumerate(masks):
        path = segmentation(folder / f"seg-{number}-{index}.dcm", series, [mask])
        sources.append(MaskSource(SourceFile(path, digest_of_file(path)), "dicom-seg", (name,)))
    return replace(case, masks=tuple(sources))


def frozen(definition: CohortDefinition, sources: list[CaseSource], out: Path) -> FrozenCohort:
    result = freeze(definition, sources, out, KEY, pool=warm_decoder())
    assert isinstance(result, FrozenCohort)
    return result


def test_masks_become_one_label_map_in_the_order_the_train_asked_for(tmp_path: Path) -> None:
    series = phantom(tmp_path / "s", ILL)
    bone = series.hounsfield > 500
    case = with_masks(tmp_path, (bone, "bone"), (series.nodule, "lesion"), (bone, "other"))
    cohort = frozen(DEFINITION, [case], tmp_path / "out")
    datalist = json.loads((cohort.path / "datalist.json").read_text())
    (entry,) = datalist["training"]
    assert entry["label"] == f"labels/{entry['case']}.nii"
    assert entry["label_value"] == ILL % 2
    assert datalist["labels"] == {"0": "background", "1": "lesion", "2": "bone"}
    labels, image = nibabel.load(cohort.path / entry["label"]), nibabel.load(cohort.path / entry["image"])
    assert np.array_equal(np.asarray(labels.dataobj), truth(series).transpose(2, 1, 0))
    assert np.array_equal(labels.affine, image.affine)
    assert labels.get_data_dtype() == np.uint8
    cohort.verify()


def test_cases_without_a_usable_mask_are_left_out(tmp_path: Path) -> None:
    series = phantom(tmp_path / "s", ILL)
    bone = series.hounsfield > 500
    good = with_masks(tmp_path / "1", (bone, "bone"), (series.nodule, "lesion"))
    missing = replace(good, case="2.25.1", masks=good.masks[:1])
    over = replace(
        with_masks(tmp_path / "2", (bone, "bone"), (bone | series.nodule, "lesion")), case="2.25.2"
    )
    wrong = replace(
        good,
        case="2.25.3",
        masks=(good.masks[0], replace(good.masks[1], file=SourceFile(tmp_path / "absent"))),
    )
    cohort = frozen(DEFINITION, [good, missing, over, wrong], tmp_path / "out")
    assert dict(cohort.left_out) == {
        Unusable.MASK_MISSING: 1,
        Unusable.MASK_OVERLAP: 1,
        Unusable.UNREADABLE: 1,
    }
    assert len(list((cohort.path / "images").iterdir())) == len(list((cohort.path / "labels").iterdir())) == 1


def test_the_masks_are_those_of_the_highdicom_that_reads_them_back(tmp_path: Path) -> None:
    """The generator's truth is what another reader sees too."""
    series = phantom(tmp_path / "s", ILL)
    path = segmentation(tmp_path / "seg.dcm", series, [series.nodule])
    back = highdicom.seg.segread(path).get_volume(combine_segments=True)
    assert int(back.array.astype(bool).sum()) == int(series.nodule.sum())
