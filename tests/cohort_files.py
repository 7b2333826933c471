"""Radiographs and definitions that the cohort tests share: real DICOM bytes, made here."""

import atexit
import functools
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    generate_uid,
)

from policies.documents import digest_of
from policies.manifest import Modality, TrainKind
from policies.policy import ConsentMode, ConsentPurpose
from station.cohorts import CaseSource, CohortDefinition, CohortKey, DecoderPool, SourceFile

KEY = CohortKey(bytes(range(32)))
DEFINITION = CohortDefinition(
    kind=TrainKind.TRAINING,
    policy_id="cxr-finding",
    policy_version=1,
    manifest_digest="sha256:" + "1" * 64,
    collections=("chest-radiographs",),
    consent_purposes=(ConsentPurpose.RESEARCH_PARTICIPANTS,),
    consent_modes=(ConsentMode.OPT_IN,),
    modalities=(Modality.DX,),
    profile="thorax-1@1",
    clinical_fields=("pneumonia", "sex"),
    label="pneumonia",
    minimum_patients=1,
)


def picture(seed: int = 1, shape: tuple[int, int] = (12, 20), bits: int = 12) -> NDArray[np.uint16]:
    """A picture that no two seeds share; not square, so that swapped axes show."""
    return np.random.default_rng(seed).integers(0, 2**bits, size=shape, dtype=np.uint16)


def radiograph(pixels: NDArray[Any], *, bits: int = 12, **elements: Any) -> Dataset:
    """One DX image; `elements` set or, when None, remove data elements by keyword."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[pixels.tobytes().hex()])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "CHEST"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.ImagerPixelSpacing = [0.2, 0.1]
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """The file's bytes."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def compressed(dataset: Dataset, syntax: UID, frame: bytes) -> bytes:
    """The file's bytes with one encapsulated frame."""
    from pydicom.encaps import encapsulate

    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return encoded(dataset)


def by_gdcm(data: bytes, syntax: UID) -> bytes:
    """The same file, compressed by GDCM: JPEG lossless or baseline."""
    import gdcm

    kinds = {
        JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        JPEGBaseline8Bit: gdcm.TransferSyntax.JPEGBaselineProcess1,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.dcm", f"{folder}/out.dcm"
        Path(source).write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(source)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        made = Path(target).read_bytes()
    assert dcmread(BytesIO(made)).file_meta.TransferSyntaxUID == syntax
    return made


def case(
    folder: Path, number: int, *, patient: str | None = None, data: bytes | None = None, **changes: Any
) -> CaseSource:
    """One image in a file of its own, of a patient of its own unless told."""
    data = encoded(radiograph(picture(number))) if data is None else data
    path = folder / f"{number}.dcm"
    path.write_bytes(data)
    source = CaseSource(
        case=f"2.25.{1000 + number}",
        patient=patient or f"PATIENT{number}",
        study=f"2.25.{5000 + number}",
        files=(SourceFile(path, digest_of(data)),),
        label=number % 2,
        clinical={"pneumonia": number % 2, "sex": "F", "crp_mg_l": 12.5},
        modality="DX",
        view_position="PA",
    )
    return replace(source, **changes)


def cases(folder: Path, count: int = 24) -> list[CaseSource]:
    """That many images of as many patients."""
    return [case(folder, number) for number in range(count)]


def warm_decoder() -> DecoderPool:
    """One decoder process for all cohorts that this process freezes: a new one takes longer to start than a test has work for it."""
    return _warm_decoder(os.getpid())


@functools.cache
def _warm_decoder(_process: int) -> DecoderPool:
    # A fork has none of the threads that a pool had before it.
    pool = DecoderPool(1)
    atexit.register(pool.__exit__, None, None, None)
    return pool


def tree(folder: Path) -> Mapping[str, bytes]:
    """Every file under a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
