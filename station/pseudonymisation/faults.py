"""Why an instance cannot be pseudonymised."""

from enum import StrEnum

from policies.errors import DataError


class PseudonymisationFault(StrEnum):
    """Reason codes, safe to show and to log."""

    NOT_DICOM = "not-dicom"
    UNREADABLE = "unreadable"
    PATIENT_ID_MISSING = "patient-id-missing"
    UID_MISSING = "uid-missing"
    UID_INVALID = "uid-invalid"
    SOP_CLASS_UNKNOWN = "sop-class-unknown"
    TRANSFER_SYNTAX_UNKNOWN = "transfer-syntax-unknown"
    NESTED_TOO_DEEP = "nested-too-deep"
    PIXELS_UNDECODABLE = "pixels-undecodable"
    PIXELS_IN_COLOUR = "pixels-in-colour"
    PIXELS_IN_SPARE_BITS = "pixels-in-spare-bits"
    SCREEN_CAPTURE = "screen-capture"
    TEXT_DOUBTFUL = "text-doubtful"
    TEXT_DETECTOR_MISSING = "text-detector-missing"


class PseudonymisationError(DataError):
    """An instance cannot be pseudonymised.

    Attributes:
        fault: the reason's code.
    """

    def __init__(self, fault: PseudonymisationFault) -> None:
        super().__init__(f"the instance cannot be pseudonymised: {fault}")
        self.fault = fault
