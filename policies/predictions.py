"""Predictions: what a train may mark or measure in a hospital's images for that hospital alone. Nothing of it leaves.

    segmentation   a label map on an image's own grid; the hospital keeps it as a DICOM Segmentation
    measurements   a closed list of named numbers of an image; the hospital keeps them as a DICOM Structured Report

What a segment or a number means is said here in codes that a board can read, not by the train when it answers. A station asks for
predictions only where the policy permits it (`release.local_predictions`) and its hospital named a folder. Pure.
"""

import math
import re
from itertools import chain
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from policies.documents import Sequence, StrictModel

MAX_SEGMENTS: Final = 255
"""What a label map of bytes can tell apart beside nothing."""
MAX_MEASUREMENTS: Final = 64
MAX_PREDICTIONS: Final = 8

PredictionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_UCUM: Final = re.compile(r"[!-~]{1,16}")
_OWN_SCHEME: Final = "99PHT"


class Code(StrictModel):
    """One concept of a coding scheme (PS3.3 section 8).

    Attributes:
        value: the code.
        scheme: SCT is SNOMED CT, DCM DICOM's own, LN LOINC, UMLS the metathesaurus, IBSI the radiomics features; 99PHT what none has.
        meaning: in words, as people read it.
    """

    value: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,15}$")]
    scheme: Literal["SCT", "DCM", "LN", "UMLS", "IBSI", "99PHT"]
    meaning: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ,.()/%+\-]{0,63}$")]

    @model_validator(mode="after")
    def _is_a_concept(self) -> "Code":
        if self.scheme == "SCT" and not _has_check_digit(self.value):
            raise ValueError("is no SNOMED CT identifier: its check digit says that it is mistyped")
        return self

    def __str__(self) -> str:
        own = " (a code of its own)" if self.scheme == _OWN_SCHEME else f" ({self.scheme} {self.value})"
        return f"{self.meaning}{own}"


class Segment(StrictModel):
    """One thing that a label map marks.

    Attributes:
        name: of the segment; what a person sees in a viewer.
        category: what sort of thing it is, such as anatomical structure (SCT 123037004).
        type: which thing it is.
    """

    name: PredictionName
    category: Code
    type: Code


class Measurement(StrictModel):
    """One number of an image.

    Attributes:
        name: by which the train states it.
        title: what it measures.
        unit: in UCUM; 1 for a number without one.
        minimum: below it there is no such number.
        maximum: above it there is none.
    """

    name: PredictionName
    title: Code
    unit: str = "1"
    minimum: float
    maximum: float

    @field_validator("unit")
    @classmethod
    def _one_word(cls, value: str) -> str:
        if not _UCUM.fullmatch(value):
            raise ValueError("is no UCUM unit: 1 to 16 printable characters without a space")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> "Measurement":
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum < self.maximum):
            raise ValueError("minimum must be below maximum, and both are numbers")
        return self


class Prediction(StrictModel):
    """One kind of thing that a train says of an image, for the hospital alone."""

    name: PredictionName
    kind: Literal["segmentation", "measurements"]
    segments: Sequence[Segment] = Field(
        default=(),
        max_length=MAX_SEGMENTS,
        description="Of a segmentation: what 1, 2, ... of its label map mean; 0 is nothing.",
    )
    values: Sequence[Measurement] = Field(
        default=(), max_length=MAX_MEASUREMENTS, description="Of measurements: the numbers."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Prediction":
        segmentation = self.kind == "segmentation"
        if bool(self.segments) != segmentation or bool(self.values) == segmentation:
            raise ValueError("a segmentation has segments, measurements have values")
        names = [*(segment.name for segment in self.segments), *(value.name for value in self.values)]
        if len(set(names)) != len(names):
            raise ValueError("names a segment or a value twice")
        return self


def problem_with_predictions(predictions: tuple[Prediction, ...]) -> str | None:
    """Return what contradicts itself in a list of predictions, or None."""
    names = [prediction.name for prediction in predictions]
    stated = list(chain.from_iterable((value.name for value in each.values) for each in predictions))
    if len(set(names)) != len(names):
        return "a prediction is named twice"
    if len(set(stated)) != len(stated):
        # The train states them in one list.
        return "a measurement stands in two predictions"
    return None


def prediction_in_words(prediction: Prediction) -> str:
    """Say what a prediction is, for people who decide."""
    if prediction.kind == "segmentation":
        marked = ", ".join(f"{segment.name}: {segment.type}" for segment in prediction.segments)
        return f"marks on the images, {prediction.name}: {marked}"
    measured = ", ".join(
        f"{value.name}: {value.title}, {value.minimum:g} to {value.maximum:g} {value.unit}"
        for value in prediction.values
    )
    return f"measurements of the images, {prediction.name}: {measured}"


def _has_check_digit(value: str) -> bool:
    """Tell whether an SCTID's last digit follows from the others (Verhoeff 1969, as SNOMED CT identifiers have it).

    >>> _has_check_digit("39607008"), _has_check_digit("39607080")
    (True, False)
    """
    if not value.isdecimal() or not 6 <= len(value) <= 18:
        return False
    check = 0
    for place, digit in enumerate(reversed(value)):
        check = _DIHEDRAL[check][_turned(int(digit), place % 8)]
    return check == 0


def _turned(digit: int, times: int) -> int:
    for _ in range(times):
        digit = _PERMUTED[digit]
    return digit


# The dihedral group of order ten, and the permutation that Verhoeff chose.
_DIHEDRAL: Final = tuple(
    tuple(
        (a + b) % 5 if a < 5 and b < 5
        else 5 + (a + b - 5) % 5 if a < 5
        else 5 + (a - 5 - b) % 5 if b < 5
        else (a - b) % 5
        for b in range(10)
    )
    for a in range(10)
)  # fmt: skip
_PERMUTED: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
