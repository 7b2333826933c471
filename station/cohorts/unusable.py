"""Why an image is left out of a cohort: a closed list, without a value from any file."""

from enum import StrEnum


class Unusable(StrEnum):
    """Why an image is left out of a cohort; counted, and shown to the hospital's own people only."""

    UNREADABLE = "unreadable"
    DIGEST = "digest"
    NOT_DICOM = "not-dicom"
    MODALITY = "modality"
    TRANSFER_SYNTAX = "transfer-syntax"
    NOT_A_RADIOGRAPH = "not-a-radiograph"
    TOO_LARGE = "too-large"
    PIXEL_ATTRIBUTES = "pixel-attributes"
    PIXEL_DATA = "pixel-data"
    LOOKUP_TABLE = "lookup-table"
    DECODER_CRASHED = "decoder-crashed"
    DECODER_TIMEOUT = "decoder-timeout"
    LABEL_MISSING = "label-missing"
    LABEL_INVALID = "label-invalid"
    CLINICAL_INVALID = "clinical-invalid"
    DUPLICATE = "duplicate"
    VIEW_POSITION = "view-position"
    RECOGNIZABLE_FACE = "recognizable-face"
    # Of a CT series (`station.cohorts.series`).
    NOT_CT = "not-ct"
    MULTIFRAME = "multiframe"
    LOCALIZER = "localizer"
    TOO_FEW_SLICES = "too-few-slices"
    GEOMETRY = "geometry"
    MIXED_SIZES = "mixed-sizes"
    MIXED_ORIENTATION = "mixed-orientation"
    MIXED_FRAME = "mixed-frame-of-reference"
    MISSING_RESCALE = "missing-rescale"
    NOT_HOUNSFIELD = "not-hounsfield"
    DUPLICATE_POSITION = "duplicate-position"
    GAP = "gap"
    UNEVEN_SPACING = "uneven-spacing"
    GANTRY_TILT = "gantry-tilt"
    # Of a mask.
    MASK_MISSING = "mask-missing"
    MASK_INVALID = "mask-invalid"
    MASK_GRID = "mask-grid"
    MASK_OVERLAP = "mask-overlap"


class UnusableImage(Exception):  # noqa: N818 - a finding about the file, not a fault of ours
    """This file gives no image; `reason` says why without a value from it."""

    def __init__(self, reason: Unusable) -> None:
        super().__init__(reason.value)
        self.reason = reason
