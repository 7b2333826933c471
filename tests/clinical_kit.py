"""What the tests of clinical data and labels share: a CT phantom's series, segmentations of it, NIfTI masks, eCRF exports."""

from datetime import date
from io import BytesIO
from pathlib import Path

import highdicom
import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from train_images.phantoms import CtScanner, PhantomSeries, write_ct_series
from train_images.phantoms.people import Person, Study

CT_STUDY = Study("C1000", date(2020, 3, 12), 36_000, pneumonia=True, temperature_c=None, crp_mg_l=None)
CT_PATIENT = Person(
    "5551212", "123456782", "Testpatient", "Eva", "F", date(1950, 6, 1), None, False, date(2020, 4, 1), (CT_STUDY,)
)  # fmt: skip
SCANNER = CtScanner(slices=6, size_px=16, pixel_mm=(20.0, 22.0), increment_mm=30.0, thickness_mm=30.0)


def ct_series(folder: Path, scanner: CtScanner = SCANNER) -> PhantomSeries:
    """Write a small CT series of one made-up patient."""
    return write_ct_series(folder, person=CT_PATIENT, study=CT_STUDY, seed=7, scanner=scanner)


def slices_of(series: PhantomSeries) -> list[Dataset]:
    """Read a series, from the feet up."""
    return [dcmread(path) for path in series.files]


def two_labels(series: PhantomSeries) -> NDArray[np.uint8]:
    """A label map (slices, rows, columns): 1 in one corner, 2 in another; nothing in it is symmetric."""
    mask = np.zeros(series.hounsfield.shape, np.uint8)
    mask[1:3, 2:5, 3:9] = 1
    mask[3:5, 8:10, 1:4] = 2
    return mask


def segmentation(series: PhantomSeries, mask: NDArray[np.uint8], *kinds: Code) -> bytes:
    """Make a DICOM SEG of a label map with highdicom, as a workstation would; lung and nodule unless told."""
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"{kind.meaning} of Testpatient",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=kind,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, kind in enumerate(kinds or (codes.SCT.Lung, codes.SCT.Nodule), start=1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=slices_of(series),
        pixel_array=mask,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=highdicom.UID(),
        series_number=900,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Acme",
        manufacturer_model_name="Drawer",
        software_versions="1",
        device_serial_number="S1",
    )
    buffer = BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def affine_of(series: PhantomSeries) -> NDArray[np.float64]:
    """The series' affine (column, row, slice) to RAS in mm, computed from its files alone."""
    first, last = (dcmread(series.files[index]) for index in (0, -1))
    row, column = (
        np.array(first.ImageOrientationPatient[part], float) for part in (slice(0, 3), slice(3, 6))
    )
    start, end = (np.array(found.ImagePositionPatient, float) for found in (first, last))
    lps = np.eye(4)
    lps[:3, 0] = row * float(first.PixelSpacing[1])
    lps[:3, 1] = column * float(first.PixelSpacing[0])
    lps[:3, 2] = (end - start) / (len(series.files) - 1)
    lps[:3, 3] = start
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def nifti(
    mask: NDArray[np.generic], affine: NDArray[np.float64], *, text: str = "", dtype: type | None = None
) -> bytes:
    """Write a label map (slices, rows, columns) as NIfTI-1 in the series' own order."""
    voxels = np.asarray(mask.transpose(2, 1, 0), dtype=dtype or mask.dtype)
    image = nibabel.Nifti1Image(voxels, affine)
    image.header["descrip"] = text.encode()[:79]
    image.header["aux_file"] = text.encode()[:23]
    image.header["intent_name"] = text.encode()[:15]
    return bytes(image.to_bytes())
