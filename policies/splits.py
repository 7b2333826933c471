"""The parts of a cohort."""

from enum import StrEnum


class Split(StrEnum):
    """The three parts of a cohort, by patient."""

    TRAINING = "training"
    VALIDATION = "validation"
    TESTING = "testing"
