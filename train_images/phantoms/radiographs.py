"""Writes a drawn chest as a DICOM file: Digital X-Ray Image Storage - For Presentation (PS3.3 A.26), or Computed Radiography (A.2).

Carries made-up identifiers where real files have them: in standard attributes, inside sequences, in free text and in private
elements, so that pseudonymisation has all of it to remove. The three encodings of `Encoding` are the ones the demo's
hospitals send.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
)

from train_images.phantoms.anatomy import Appearance, Picture
from train_images.phantoms.people import Person, Study

_PIXEL_AREA_MM: Final = 358.0
IMPLEMENTATION: Final = UID("2.25.306953061337049953302640346735212017365")


class Encoding(Enum):
    """Transfer syntax, bits stored, and photometric interpretation."""

    PLAIN_8_BIT = (ExplicitVRLittleEndian, 8, "MONOCHROME2")
    JPEG2000_12_BIT = (JPEG2000Lossless, 12, "MONOCHROME2")
    JPEG_LS_INVERTED_12_BIT = (JPEGLSLossless, 12, "MONOCHROME1")


_DIGITAL_ONLY: Final = (
    "PresentationIntentType", "ImageLaterality", "AnatomicRegionSequence", "ViewCodeSequence", "AcquisitionContextSequence",
    "DetectorType", "PositionerType", "PositionReferenceIndicator", "FrameOfReferenceUID", "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign", "RescaleIntercept", "RescaleSlope", "RescaleType", "PresentationLUTShape",
)  # fmt: skip
"""What modules of a digital radiograph have and those of computed radiography do not (PS3.3 A.26 beside A.2)."""


@dataclass(frozen=True, slots=True)
class RadiographKind:
    """What kind of radiograph a file says it holds.

    Attributes:
        modality: DX, or CR.
        view: the View Position. What is drawn is a frontal chest whatever it says.
    """

    modality: Literal["DX", "CR"] = "DX"
    view: str = "PA"

    @property
    def sop_class(self) -> UID:
        """The SOP class of the file."""
        return (
            DigitalXRayImageStorageForPresentation
            if self.modality == "DX"
            else ComputedRadiographyImageStorage
        )


FRONTAL: Final = RadiographKind()


@dataclass(frozen=True, slots=True)
class Site:
    """A made-up hospital and its X-ray room."""

    letter: str
    institution: str
    manufacturer: str
    model: str
    encoding: Encoding
    appearance: Appearance
    prevalence: float


def made_up_uid(*parts: object) -> UID:
    """Return the UID (PS3.5 B.2, ``2.25.``) that belongs to `parts`."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def write_radiograph(
    path: Path,
    picture: Picture,
    *,
    site: Site,
    person: Person,
    study: Study,
    seed: int,
    kind: RadiographKind = FRONTAL,
) -> None:
    """Write one radiograph.

    Args:
        path: the file to make.
        picture: values in 0..1, bright is dense.
        site: where it was "taken".
        person: of whom.
        study: when, and why.
        seed: part of every UID, so two sets of phantoms never collide.
        kind: modality and view.
    """
    syntax, bits, photometric = site.encoding.value
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind.sop_class
    meta.MediaStorageSOPInstanceUID = made_up_uid(seed, site.institution, study.accession, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    _identify(dataset, site, person, study, seed)
    _describe_acquisition(dataset, site, study)
    carry_identifiers_elsewhere(dataset, site.manufacturer, person, study, "X-thorax")
    _set_pixels(dataset, picture, bits=bits, photometric=photometric)
    _set_kind(dataset, kind)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


def _identify(dataset: Dataset, site: Site, person: Person, study: Study, seed: int) -> None:
    day, time = study.day.strftime("%Y%m%d"), _time(study.time_s)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPInstanceUID = made_up_uid(seed, site.institution, study.accession, "instance")
    dataset.StudyInstanceUID = made_up_uid(seed, site.institution, study.accession, "study")
    dataset.SeriesInstanceUID = made_up_uid(seed, site.institution, study.accession, "series")
    dataset.FrameOfReferenceUID = made_up_uid(seed, site.institution, study.accession, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    dataset.AccessionNumber = study.accession
    dataset.StudyID = study.accession[-5:]
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.PatientName = f"{person.family}^{person.given}"
    dataset.PatientID = person.patient_id
    dataset.IssuerOfPatientID = site.institution
    dataset.OtherPatientIDs = person.citizen_number
    dataset.PatientBirthDate = person.birth.strftime("%Y%m%d")
    dataset.PatientSex = person.sex
    dataset.PatientAge = f"{person.age_years(study.day):03d}Y"


def _describe_acquisition(dataset: Dataset, site: Site, study: Study) -> None:
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.Manufacturer = site.manufacturer
    dataset.ManufacturerModelName = site.model
    dataset.InstitutionName = site.institution
    dataset.InstitutionAddress = "Stationsplein 1, Nederland"
    dataset.StationName = f"{site.letter}RX1"
    dataset.DeviceSerialNumber = str(100_000 + study.time_s)
    dataset.SoftwareVersions = "4.2"
    dataset.ReferringPhysicianName = "Dr^Vermeulen"
    dataset.OperatorsName = "MBB^Hanna"
    dataset.SeriesDescription = "Thorax PA"
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code("816094009", "SCT", "Chest")])
    dataset.ViewCodeSequence = Sequence([_code("399348003", "SCT", "postero-anterior")])
    dataset.ProcedureCodeSequence = Sequence([_code("36643-5", "LN", "XR Chest 2 Views")])
    dataset.AcquisitionContextSequence = Sequence([])
    dataset.DetectorType = "SCINTILLATOR"
    dataset.PositionerType = ""
    dataset.KVP = "110"
    dataset.ExposureInuAs = 900 + study.time_s % 1500
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def _set_kind(dataset: Dataset, kind: RadiographKind) -> None:
    dataset.SOPClassUID, dataset.Modality, dataset.ViewPosition = kind.sop_class, kind.modality, kind.view
    if kind.view != "PA":
        dataset.SeriesDescription = f"Thorax {kind.view}"
        del dataset.ViewCodeSequence
    if kind.modality == "CR":
        for name in _DIGITAL_ONLY:
            if name in dataset:
                del dataset[name]


def carry_identifiers_elsewhere(
    dataset: Dataset, manufacturer: str, person: Person, study: Study, examination: str
) -> None:
    """Set identifiers in free text, in a sequence and in a private block, as real files have them."""
    dataset.StudyDescription = f"{examination} {person.family}"
    dataset.PatientComments = f"wekelijks spreekuur, BSN {person.citizen_number}"
    request = Dataset()
    request.AccessionNumber = study.accession
    request.RequestedProcedureDescription = f"{examination} {person.given} {person.family}"
    request.RequestedProcedureID = study.accession
    dataset.RequestAttributesSequence = Sequence([request])
    block = dataset.private_block(0x0019, f"{manufacturer.upper()} PRIVATE", create=True)
    block.add_new(0x01, "LO", f"{person.family} {person.patient_id}")
    block.add_new(0x02, "DS", "3.4")


def _set_pixels(dataset: Dataset, picture: Picture, *, bits: int, photometric: str) -> None:
    rows, columns = picture.shape
    full = (1 << bits) - 1
    stored = np.rint(picture * full)
    inverted = photometric == "MONOCHROME1"
    if inverted:
        stored = full - stored
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    spacing = round(_PIXEL_AREA_MM / rows, 4)
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.PixelIntensityRelationship = "LOG"
    # C.8.11.3.1.2: 1 where lower values are less X-ray intensity; the grey curve here is bright for dense.
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = str((full + 1) // 2), str(full + 1)
    dataset.PixelData = stored.astype(np.uint8 if bits <= 8 else np.uint16).tobytes()
    dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _time(seconds: int) -> str:
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
