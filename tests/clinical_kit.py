"""What the tests of clinical data and labels share: a CT phantom's series, segmentations of it, NIfTI masks, eCRF exports."""

import csv
from datetime import date
from io import BytesIO, StringIO
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


CASTOR_COLUMNS = (
    "Participant Id", "Participant Status", "Site Abbreviation", "Participant Creation Date", "pat_number",
    "study_accession", "pcr_result", "pcr_date", "corads_score", "ct_severity", "onset_date", "sympt_dyspnoea",
    "sympt_cough", "sympt_fever", "adm_temp", "adm_sat", "adm_oxygen", "adm_crp", "adm_date", "icu_yn", "icu_date",
    "vent_yn", "outcome30", "sex", "birth_date", "bmi", "smoking", "comorb#Hypertension", "comorb#Diabetes",
    "comorb#Cardiovascular", "comorb#COPD", "comorb#Asthma", "comorb#Kidney", "comorb#Malignancy",
    "comorb#Immunocompromised", "vacc_status", "remarks",
)  # fmt: skip
_CASTOR_ROW = {
    "Participant Id": "110001", "Participant Status": "Completed", "Site Abbreviation": "UMC",
    "Participant Creation Date": "01-04-2020 09:12:44", "pat_number": "3748755", "study_accession": "A1000",
    "pcr_result": "1", "pcr_date": "15-09-2020", "corads_score": "5", "ct_severity": "14", "onset_date": "10-09-2020",
    "sympt_dyspnoea": "1", "sympt_cough": "0", "sympt_fever": "##USER_MISSING_98##", "adm_temp": "38.4", "adm_sat": "91",
    "adm_oxygen": "2", "adm_crp": "-99", "adm_date": "16-09-2020", "icu_yn": "1", "icu_date": "19-09-2020", "vent_yn": "0",
    "outcome30": "1", "sex": "2", "birth_date": "22-11-1975", "bmi": "27.4", "smoking": "1", "comorb#Hypertension": "1",
    "comorb#Diabetes": "0", "comorb#Cardiovascular": "0", "comorb#COPD": "0", "comorb#Asthma": "0", "comorb#Kidney": "0",
    "comorb#Malignancy": "0", "comorb#Immunocompromised": "0", "vacc_status": "0",
    "remarks": 'Says Mrs. Testpatient; "better" since\nyesterday',
}  # fmt: skip


def castor(*rows: dict[str, str], columns: tuple[str, ...] = CASTOR_COLUMNS) -> bytes:
    """Write an export as Castor's study data come: one line per participant, semicolons, dates dd-mm-yyyy."""
    text = StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([{**_CASTOR_ROW, **row}.get(column, "") for column in columns])
    return text.getvalue().encode("utf-8-sig")


OPENCLINICA_HEAD = """Dataset Name:\tThorax
Dataset Description:\tRadiographs
Study Name:\tThorax
Protocol ID:\tTHX-1
Date:\t2020-Nov-22
Subjects:\t2
Study Event Definitions\t2
Study Event Definition 1 (Repeating)\tRadiograph\tE1
CRF\tRadiograph form\tC1
Study Event Definition 2\tIntake\tE2
CRF\tHabits\tC2

"""
_OPENCLINICA_COLUMNS = (
    "Study Subject ID", "Protocol ID", "Person ID", "Subject Status", "Sex", "Date of Birth", "StartDate_E1_1",
    "XRAYDATE_E1_1_C1", "PNEUM_E1_1_C1", "TEMP_E1_1_C1", "CRP_E1_1_C1",
    "XRAYDATE_E1_2_C1", "PNEUM_E1_2_C1", "TEMP_E1_2_C1", "CRP_E1_2_C1", "SMOKE_E2_C2",
)  # fmt: skip


def openclinica(*rows: tuple[str, ...]) -> bytes:
    """Write an extract as OpenClinica's tab-delimited ones come: a description, then a line per subject, repeats beside each other."""
    lines = ["\t".join(_OPENCLINICA_COLUMNS), *("\t".join(row) for row in rows)]
    return (OPENCLINICA_HEAD + "\n".join(lines) + "\n").encode()
