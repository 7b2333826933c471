"""What can keep a mask from being handed over, by code and in words."""

from enum import StrEnum

from policies.errors import DataError


class LabelFault(StrEnum):
    """Why a mask is not taken, or waits."""

    FILE_MISSING = "file-missing"
    NOT_NIFTI = "not-nifti"
    TOO_LARGE = "too-large"
    VOXEL_TYPE = "voxel-type"
    SHAPE_DIFFERS = "shape-differs"
    GRID_DIFFERS = "grid-differs"
    NOT_WHOLE_NUMBERS = "not-whole-numbers"
    VALUE_WITHOUT_NAME = "value-without-name"
    NAMES_WRONG = "names-wrong"
    PATIENT_UNKNOWN = "patient-unknown"
    STUDY_UNKNOWN = "study-unknown"
    SERIES_UNKNOWN = "series-unknown"
    SERIES_AMBIGUOUS = "series-ambiguous"
    SERIES_NOT_A_VOLUME = "series-not-a-volume"
    STANDS_TWICE = "stands-twice"
    NOT_A_SEGMENTATION = "not-a-segmentation"


SAYS: dict[LabelFault, str] = {
    LabelFault.FILE_MISSING: "the file is not there",
    LabelFault.NOT_NIFTI: "is not a whole NIfTI file in one piece (.nii or .nii.gz)",
    LabelFault.TOO_LARGE: "is larger than masks may be",
    LabelFault.VOXEL_TYPE: "has voxels that are not plain numbers, or are scaled",
    LabelFault.SHAPE_DIFFERS: "has not the shape of its series",
    LabelFault.GRID_DIFFERS: "does not lie on the voxels of its series",
    LabelFault.NOT_WHOLE_NUMBERS: "holds a value that is not a whole number from 0 up",
    LabelFault.VALUE_WITHOUT_NAME: "holds a value that has no name",
    LabelFault.NAMES_WRONG: "names must be small letters, digits and hyphens, each once, 1 to 255 of them",
    LabelFault.PATIENT_UNKNOWN: "images of this patient are not here, or the id is several patients'",
    LabelFault.STUDY_UNKNOWN: "the patient has no study with this accession number here",
    LabelFault.SERIES_UNKNOWN: "the series is not in this collection; take its images in first",
    LabelFault.SERIES_AMBIGUOUS: "the study has several series; name the one it was drawn on",
    LabelFault.SERIES_NOT_A_VOLUME: "its series is no even stack of slices, and not a single image",
    LabelFault.STANDS_TWICE: "there is another row for the same series and names",
    LabelFault.NOT_A_SEGMENTATION: "names no series, or its segments are not numbered 1, 2, ...",
}


class LabelError(DataError):
    """A mask is not what it must be.

    Attributes:
        fault: why.
    """

    def __init__(self, fault: LabelFault) -> None:
        super().__init__(SAYS[fault])
        self.fault = fault
