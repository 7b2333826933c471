"""CT cohorts: what is laid out, what is left out and why, and that little is in memory."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from cohort_files import KEY, tree
from ct_files import CT_DEFINITION, ct_case, ct_cases, phantom
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from policies.documents import digest_of_file
from policies.refusals import RefusalCode, Refused
from policies.splits import Split
from station.cohorts import CaseSource, CohortDefinition, FrozenCohort, SourceFile, Unusable, freeze
from station.cohorts.decoding import DecoderPool
from station.cohorts.hounsfield import read_header, read_slice
from station.cohorts.volumes import Volume, read_series, write_volume
from train_images.phantoms import CtFault

LAID = (Split.TRAINING, Split.VALIDATION)


def frozen(
    sources: list[CaseSource], out: Path, definition: CohortDefinition = CT_DEFINITION
) -> FrozenCohort:
    result = freeze(definition, sources, out, KEY)
    assert isinstance(result, FrozenCohort)
    return result


def laid_number(start: int = 0) -> int:
    """A patient of a split that trains are given."""
    return next(n for n in range(start, start + 64) if KEY.split_of(f"PATIENT{n}") in LAID)


def test_a_ct_cohort_is_what_field_tools_read(tmp_path: Path) -> None:
    cohort = frozen(ct_cases(tmp_path, 4), tmp_path / "out")
    datalist = json.loads((cohort.path / "datalist.json").read_text())
    described = json.loads((cohort.path / "cohort.json").read_text())
    assert datalist["tensorImageSize"] == "3D"
    assert datalist["modality"] == {"0": "CT"}
    assert (described["images"]["dtype"], described["images"]["unit"]) == ("int16", "HU")
    entries = [entry for split in LAID for entry in datalist[split]]
    assert entries
    for entry in entries:
        image = nibabel.load(cohort.path / entry["image"])
        assert image.shape == (36, 36, 12)
        assert image.get_data_dtype() == np.int16
        assert (cohort.path / entry["image"]).stat().st_mode & 0o777 == 0o444
        mapped = np.memmap(cohort.path / entry["image"], "<i2", "r", 352, image.shape, "F")
        assert np.array_equal(mapped, np.asarray(image.dataobj))
    cohort.verify()


def test_the_same_slices_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    sources = ct_cases(tmp_path, 3)
    shuffled = [replace(source, files=source.files[::-1]) for source in sources[::-1]]
    assert tree(frozen(sources, tmp_path / "one").path) == tree(frozen(shuffled, tmp_path / "two").path)


FAULTS = {
    CtFault.GAP: Unusable.GAP,
    CtFault.DUPLICATE: Unusable.DUPLICATE_POSITION,
    CtFault.UNEVEN: Unusable.UNEVEN_SPACING,
    CtFault.TILT: Unusable.GANTRY_TILT,
    CtFault.MIXED_ORIENTATION: Unusable.MIXED_ORIENTATION,
    CtFault.MIXED_SIZE: Unusable.MIXED_SIZES,
    CtFault.MISSING_RESCALE: Unusable.MISSING_RESCALE,
    CtFault.LOCALIZER: Unusable.LOCALIZER,
}


def test_every_fault_of_the_phantoms_has_its_reason() -> None:
    assert set(FAULTS) == set(CtFault)


def test_series_that_are_no_volume_are_left_out_by_reason(tmp_path: Path) -> None:
    good = ct_case(tmp_path, laid_number())
    bad = [
        ct_case(tmp_path, 10 + number, fault=fault, patient=good.patient)
        for number, fault in enumerate(CtFault)
    ]
    cohort = frozen([good, *bad], tmp_path / "out")
    assert dict(cohort.left_out) == dict.fromkeys(FAULTS.values(), 1)
    assert [path.suffix for path in (cohort.path / "images").iterdir()] == [".nii"]


def test_a_cohort_of_bad_series_alone_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    refused = freeze(
        CT_DEFINITION,
        [ct_case(tmp_path, number, fault=CtFault.GAP) for number in range(4)],
        tmp_path / "out",
        KEY,
    )
    assert isinstance(refused, Refused)
    assert refused.code is RefusalCode.DATA_TOO_FEW_PATIENTS
    assert list((tmp_path / "out").iterdir()) == []


def test_a_slice_that_is_gone_changed_or_no_dicom_costs_its_series(tmp_path: Path) -> None:
    number = laid_number()
    good = ct_case(tmp_path, number)
    damaged = ct_case(tmp_path, 40)
    path = damaged.files[3].path
    path.write_bytes(path.read_bytes()[:-2] + b"\xff\xff")
    absent = replace(ct_case(tmp_path, 41), files=(*good.files[1:], SourceFile(tmp_path / "absent")))
    other = tmp_path / "other.dcm"
    other.write_bytes(b"%PDF-1.7" * 99)
    foreign = replace(
        ct_case(tmp_path, 42), files=(*good.files[1:], SourceFile(other, digest_of_file(other)))
    )
    sources = [good, *(replace(each, patient=good.patient) for each in (damaged, absent, foreign))]
    cohort = frozen(sources, tmp_path / "out")
    assert dict(cohort.left_out) == {Unusable.DIGEST: 1, Unusable.UNREADABLE: 1, Unusable.NOT_DICOM: 1}


def test_faces_and_other_views_are_withheld(tmp_path: Path) -> None:
    good = ct_case(tmp_path, laid_number())
    face = replace(ct_case(tmp_path, 40), patient=good.patient, recognizable_face=True)
    cohort = frozen([good, face], tmp_path / "out")
    assert dict(cohort.left_out) == {Unusable.RECOGNIZABLE_FACE: 1}


def test_padding_is_air_and_values_are_clipped(tmp_path: Path) -> None:
    series = phantom(tmp_path / "series")
    dataset = dcmread(series.files[0])
    pixels = np.maximum(dataset.pixel_array, 9)
    pixels[0, :4] = (4095, 7, 8, 9)
    dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 7, 8
    dataset["PixelPaddingValue"].VR = dataset["PixelPaddingRangeLimit"].VR = "US"
    dataset.RescaleSlope, dataset.RescaleIntercept = "10.5", "-1000"
    dataset.PixelData = pixels.tobytes()
    path = tmp_path / "changed.dcm"
    dataset.save_as(path)
    made = read_slice(path.read_bytes()).hounsfield
    assert made[0, :4].tolist() == [32_767, -1024, -1024, -906]
    assert made.dtype == np.int16
    assert np.array_equal(made[1:], np.clip(np.rint(pixels[1:] * 10.5 - 1000), -1024, 32_767))


def test_a_header_is_read_from_the_beginning_of_a_file_or_from_all_of_it(tmp_path: Path) -> None:
    data = phantom(tmp_path / "series").files[0].read_bytes()
    whole = read_header(data, whole=True)
    assert whole is not None
    assert whole.position is not None
    assert read_header(data[:-2000], whole=False) == whole
    for cut in range(140, len(data) - 36 * 36 * 2 - 20, 97):
        assert read_header(data[:cut], whole=False) is None
    implicit = dcmread(phantom(tmp_path / "again").files[0])
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit.save_as(tmp_path / "implicit.dcm", implicit_vr=True, little_endian=True)
    assert read_header((tmp_path / "implicit.dcm").read_bytes()[:-2000], whole=False) == whole


def test_headers_alone_are_read_for_readiness(tmp_path: Path) -> None:
    """What readiness asks: findings of a series, without decoding a pixel."""
    case = ct_case(tmp_path, 0, fault=CtFault.GAP)
    with DecoderPool(size=1) as pool:
        headers = read_series(case.files, pool)
        assert not isinstance(headers, Unusable)
        assert len(headers) == 11
        missing = read_series((*case.files, SourceFile(tmp_path / "absent")), pool)
    assert missing is Unusable.UNREADABLE


def test_a_volume_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    case = ct_case(tmp_path, 0)
    path = case.files[5].path
    path.write_bytes(path.read_bytes()[:-4])
    with DecoderPool(size=1) as pool:
        assert isinstance(write_volume(case.files, tmp_path / "v.nii", pool), Unusable)
        assert not (tmp_path / "v.nii").exists()
        assert isinstance(write_volume(ct_case(tmp_path, 1).files, tmp_path / "v.nii", pool), Volume)


MEASURE = """
import resource, sys
from pathlib import Path
sys.path[:0] = ["tests"]
from ct_files import phantom
from train_images.phantoms import CtScanner
from station.cohorts import SourceFile
from station.cohorts.decoding import DecoderPool
from station.cohorts.volumes import write_volume
folder = Path(sys.argv[1])
files = [SourceFile(path) for path in sorted(folder.iterdir())]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with DecoderPool(size=1) as pool:
    volume = write_volume(files, folder.with_suffix(".nii"), pool)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, folder.with_suffix(".nii").stat().st_size // 1024)
"""


def test_memory_is_bounded_by_slices_and_not_by_the_volume(tmp_path: Path) -> None:
    from train_images.phantoms import CtScanner

    folder = tmp_path / "large"
    phantom(folder, scanner=CtScanner(slices=80, size_px=512, pixel_mm=(0.7, 0.8), increment_mm=1.0))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[4],
    )
    grown_kib, volume_kib = map(int, done.stdout.split())
    assert volume_kib > 40_000
    assert grown_kib < volume_kib / 3


@pytest.mark.parametrize("size", [1, 3])
def test_the_number_of_processes_changes_nothing(tmp_path: Path, size: int) -> None:
    case = ct_case(tmp_path, 0)
    with DecoderPool(size=1) as one, DecoderPool(size=size) as other:
        first = write_volume(case.files, tmp_path / "1.nii", one)
        assert first == write_volume(case.files, tmp_path / "2.nii", other)
    assert (tmp_path / "1.nii").read_bytes() == (tmp_path / "2.nii").read_bytes()
