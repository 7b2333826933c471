"""Identified DICOM files that the pseudonymisation and intake tests share: made here, nobody's."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from station.pseudonymisation import Pseudonymiser, PseudonymKey

DX = str(DigitalXRayImageStorageForPresentation)
CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def make_key(folder: Path, name: str = "pseudonym.key") -> PseudonymKey:
    return PseudonymKey.generate(folder / name, now=NOW)


def fixed_key(folder: Path, name: str = "fixed.key") -> PseudonymKey:
    """A key that is the same in every run, for tests that search outputs for short values."""
    secret = bytes(range(32))
    document = {
        "schema": "pht-pseudonym-key",
        "version": 1,
        "created_at": "2026-11-22T12:00:00Z",
        "secret": base64.b64encode(secret).decode(),
        "key_id": hashlib.sha256(b"pht-pseudonym-key-id" + secret).hexdigest()[:16],
    }
    path = folder / name
    path.touch(0o600)
    path.write_text(json.dumps(document))
    return PseudonymKey.load(path)


def pseudonymiser(folder: Path, project: str = "registry") -> Pseudonymiser:
    return Pseudonymiser(fixed_key(folder), project)


def identified(**elements: Any) -> Dataset:
    """A small DX image of Mrs. Testpatient; `elements` set or, when None, remove data elements by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DX
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.111.1"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.111.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.111.3"
    dataset.StudyDate, dataset.StudyTime = "20200917", "122136"
    dataset.AccessionNumber = "A20086678"
    dataset.Modality = "DX"
    dataset.Manufacturer = "Philips"
    dataset.InstitutionName = "Ziekenhuis Amstelrijk"
    dataset.ReferringPhysicianName = "Dokter^Onbekend"
    dataset.PatientName = "Testpatient^Eva"
    dataset.PatientID = "3748755"
    dataset.IssuerOfPatientID = "Amstelrijk"
    dataset.PatientBirthDate = "19751122"
    dataset.PatientSex = "F"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = 2, 3
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(range(12))
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", DX)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    return dataset


def file_bytes(dataset: Dataset, *, implicit: bool = False) -> bytes:
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def reread(data: bytes) -> Dataset:
    dataset: Dataset = dcmread(BytesIO(data))
    return dataset


def item(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def code_item(meaning: str, scheme: str = "99LOCAL") -> Dataset:
    return item(CodeValue="X1", CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def sequence(*items: Dataset) -> Sequence:
    return Sequence(list(items))
