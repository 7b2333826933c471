"""Writes a made-up chest as a CT series (CT Image Storage, PS3.3 A.3), whole or with one of the faults that scanners send.

Carries made-up identifiers where real files have them, as the radiographs do. `CtFault` names what may be wrong with a
series; without one it is a plain axial helical scan, or an oblique one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from train_images.phantoms.people import Person, Study
from train_images.phantoms.radiographs import IMPLEMENTATION, carry_identifiers_elsewhere, made_up_uid
from train_images.phantoms.thorax import Thorax

Vector = NDArray[np.float64]

_INTERCEPT: Final = -1024
_MAXIMUM: Final = 4095


class CtFault(StrEnum):
    """What may be wrong with a series."""

    GAP = "gap"
    DUPLICATE = "duplicate"
    UNEVEN = "uneven"
    TILT = "tilt"
    MIXED_ORIENTATION = "mixed-orientation"
    MIXED_SIZE = "mixed-size"
    MISSING_RESCALE = "missing-rescale"
    LOCALIZER = "localizer"


@dataclass(frozen=True, slots=True)
class CtScanner:
    """A made-up hospital's scanner and how it cuts.

    Attributes:
        letter: as in `Site`.
        slices, size_px: the stack's shape.
        pixel_mm: row and column spacing; not equal, so that swapped axes show.
        increment_mm: from slice to slice.
        thickness_mm: of a slice; slices may overlap.
        oblique_deg: rotation of the whole stack about x and then z; positions follow it, so nothing is sheared.
    """

    letter: str = "A"
    institution: str = "Ziekenhuis Wilgenoord"
    manufacturer: str = "Philips"
    model: str = "Brilliance 64"
    slices: int = 24
    size_px: int = 64
    pixel_mm: tuple[float, float] = (5.5, 6.0)
    increment_mm: float = 5.0
    thickness_mm: float = 6.0
    oblique_deg: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PhantomSeries:
    """What was written.

    Attributes:
        files: in the order of the position along the normal, from the feet up.
        hounsfield: (slices, rows, columns), as stored.
        nodule: likewise; the true segmentation.
        affine: from (column, row, slice) to RAS millimetres, of a series without a fault.
        series_uid, study_uid: made up, unlike any other's.
    """

    files: tuple[Path, ...]
    hounsfield: NDArray[np.int16]
    nodule: NDArray[np.bool_]
    affine: NDArray[np.float64]
    series_uid: str
    study_uid: str


@dataclass(frozen=True, slots=True)
class _Slice:
    number: int
    row: Vector
    column: Vector
    position: Vector
    size_px: int


def write_ct_series(
    folder: Path,
    *,
    person: Person,
    study: Study,
    seed: int,
    scanner: CtScanner | None = None,
    fault: CtFault | None = None,
) -> PhantomSeries:
    """Write one series, a file per slice, named by chance: the order is in the files alone.

    Args:
        folder: made when missing.
        person: of whom.
        study: when; `pneumonia` says whether there is a nodule.
        seed: part of every UID and of the anatomy.
        scanner: None for the default.
        fault: what to do wrong.
    """
    scanner = scanner or CtScanner()
    random = np.random.default_rng([seed, int.from_bytes(study.accession.encode()[-8:], "big")])
    thorax = Thorax.draw(random, nodule=study.pneumonia)
    folder.mkdir(parents=True, exist_ok=True)
    names = random.permutation(2 * scanner.slices)
    files, stack, masks = [], [], []
    for cut in _cuts(scanner, fault):
        x, y, z = _points(cut, scanner)
        hounsfield = np.rint(thorax.hounsfield(x, y, z) + random.normal(0, 12, x.shape))
        stored = np.clip(hounsfield - _INTERCEPT, 0, _MAXIMUM).astype(np.uint16)
        dataset = _describe(person, study, scanner, cut, seed)
        _set_pixels(dataset, stored, cut, scanner, fault)
        path = folder / f"{int(names[cut.number]):05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
        stack.append(stored.astype(np.int16) + np.int16(_INTERCEPT))
        masks.append(thorax.inside_nodule(x, y, z))
    one_size = len({each.shape for each in stack}) == 1
    return PhantomSeries(
        files=tuple(files),
        hounsfield=np.stack(stack) if one_size else np.zeros((0, 0, 0), np.int16),
        nodule=np.stack(masks) if one_size else np.zeros((0, 0, 0), bool),
        affine=_affine(scanner),
        series_uid=str(made_up_uid(seed, scanner.institution, study.accession, "ct-series")),
        study_uid=str(made_up_uid(seed, scanner.institution, study.accession, "study")),
    )


def _cuts(scanner: CtScanner, fault: CtFault | None) -> Iterator[_Slice]:
    """Yield where each slice lies."""
    about_x, about_z = (math.radians(angle) for angle in scanner.oblique_deg)
    turn = _about_z(about_z) @ _about_x(about_x)
    row, column, normal = turn[:, 0], turn[:, 1], turn[:, 2]
    along = normal
    if fault is CtFault.TILT:
        # The gantry leans over and the table still moves along z: the stack is sheared.
        tilted = _about_x(math.radians(15.0))
        row, column, along = tilted[:, 0], tilted[:, 1], np.array([0.0, 0.0, 1.0])
    middle = scanner.slices // 2
    row_mm, column_mm = scanner.pixel_mm
    for number in range(scanner.slices):
        if fault is CtFault.GAP and number == middle:
            continue
        place = number - 1 if fault is CtFault.DUPLICATE and number == middle else number
        offset = (place - (scanner.slices - 1) / 2) * scanner.increment_mm
        if fault is CtFault.UNEVEN and number == middle:
            offset += 0.3 * scanner.increment_mm
        size = scanner.size_px // 2 if fault is CtFault.MIXED_SIZE and number == middle else scanner.size_px
        here_row, here_column = row, column
        if fault is CtFault.MIXED_ORIENTATION and number == middle:
            here_row, here_column = np.array([1.0, 0, 0]), np.array([0, 0, -1.0])
        # The standard's position is the middle of the first pixel (PS3.3 C.7.6.2.1.1).
        corner = -(size - 1) / 2 * (column_mm * here_row + row_mm * here_column)
        yield _Slice(number, here_row, here_column, corner + offset * along, size)


def _affine(scanner: CtScanner) -> NDArray[np.float64]:
    first, second = list(_cuts(scanner, None))[:2]
    row_mm, column_mm = scanner.pixel_mm
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = first.row * column_mm, first.column * row_mm
    lps[:3, 2], lps[:3, 3] = second.position - first.position, first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def _points(cut: _Slice, scanner: CtScanner) -> tuple[Vector, Vector, Vector]:
    row_mm, column_mm = scanner.pixel_mm
    index = np.arange(cut.size_px, dtype=np.float64)
    down, across = np.meshgrid(index * row_mm, index * column_mm, indexing="ij")
    points = cut.position[:, None, None] + across * cut.row[:, None, None] + down * cut.column[:, None, None]
    return points[0], points[1], points[2]


def _describe(person: Person, study: Study, scanner: CtScanner, cut: _Slice, seed: int) -> FileDataset:
    def uid(*parts: object) -> UID:
        return made_up_uid(seed, scanner.institution, study.accession, *parts)

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid("ct", cut.number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    day, time = study.day.strftime("%Y%m%d"), f"{study.time_s // 3600:02d}{study.time_s // 60 % 60:02d}00"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid("ct", cut.number)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("ct-series")
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid("ct-frame"), ""
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    dataset.AccessionNumber, dataset.StudyID = study.accession, study.accession[-5:]
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 2, 1, cut.number + 1
    dataset.PatientName = f"{person.family}^{person.given}"
    dataset.PatientID, dataset.IssuerOfPatientID = person.patient_id, scanner.institution
    dataset.PatientBirthDate, dataset.PatientSex = person.birth.strftime("%Y%m%d"), person.sex
    dataset.PatientAge = f"{person.age_years(study.day):03d}Y"
    dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
    dataset.SeriesDescription = "CT-thorax"
    dataset.Manufacturer, dataset.ManufacturerModelName = scanner.manufacturer, scanner.model
    dataset.InstitutionName, dataset.StationName = scanner.institution, f"{scanner.letter}CT1"
    dataset.DeviceSerialNumber = str(200_000 + study.time_s)
    dataset.ReferringPhysicianName, dataset.OperatorsName = "Dr^Vermeulen", "MBB^Hanna"
    dataset.ConvolutionKernel, dataset.KVP = "B", "120"
    dataset.PatientPosition, dataset.BurnedInAnnotation = "HFS", "NO"
    carry_identifiers_elsewhere(dataset, scanner.manufacturer, person, study, "CT-thorax")
    return dataset


def _set_pixels(
    dataset: Dataset, stored: NDArray[np.uint16], cut: _Slice, scanner: CtScanner, fault: CtFault | None
) -> None:
    kind = (
        ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        if fault is CtFault.LOCALIZER
        else ["ORIGINAL", "PRIMARY", "AXIAL"]
    )
    dataset.ImageType = kind
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelSpacing = [_decimal(value) for value in scanner.pixel_mm]
    dataset.SliceThickness = _decimal(scanner.thickness_mm)
    dataset.ImageOrientationPatient = [_decimal(float(value)) for value in (*cut.row, *cut.column)]
    dataset.ImagePositionPatient = [_decimal(float(value)) for value in cut.position]
    if fault is CtFault.TILT:
        dataset.GantryDetectorTilt = "15"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(_INTERCEPT), "1", "HU"
    if fault is CtFault.MISSING_RESCALE:
        del dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"


def _decimal(value: float) -> str:
    # A DS has sixteen characters at most.
    return f"{value:.9f}".rstrip("0").rstrip(".") or "0"


def _about_x(angle: float) -> Vector:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def _about_z(angle: float) -> Vector:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
