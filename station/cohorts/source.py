"""What a cohort is made from, by the project's pseudonyms: files that somebody catalogued, values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

JsonScalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file.

    Attributes:
        path: where it lies.
        digest: ``sha256:...`` of its bytes, checked before they are decoded; None where nobody vouched for one (phantoms).
    """

    path: Path
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class MaskSource:
    """A mask drawn on the case's images.

    Attributes:
        file: a DICOM SEG, or a NIfTI file on the grid of the case's own volume.
        format: which of the two.
        names: what the mask's values 1, 2, ... mean, in order.
    """

    file: SourceFile
    format: Literal["dicom-seg", "nifti"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaseSource:
    """One image that may enter a cohort: a radiograph, or the slices of one CT series.

    Attributes:
        case: its key in the project: the remapped SOP Instance UID of a radiograph, Series Instance UID of a CT.
        patient: the patient's pseudonym in the project.
        study: the study's key in the project.
        files: its DICOM files in any order; one for a radiograph.
        label: the value of the definition's label field; None where the study has none.
        clinical: the study's clinical fields; what the definition does not grant is not written.
        acquisition: how its images were acquired, by the name of an acquisition field, as catalogued; likewise.
        modality: as catalogued; the files must say the same.
        view_position: as catalogued, may be empty.
        masks: what was drawn on it.
        recognizable_face: whether a face could be rebuilt from it; None where nobody looked.
    """

    case: str
    patient: str
    study: str
    files: tuple[SourceFile, ...]
    label: float | int | None
    clinical: Mapping[str, JsonScalar] = field(default_factory=dict)
    modality: str = ""
    view_position: str = ""
    masks: tuple[MaskSource, ...] = ()
    recognizable_face: bool | None = None
    acquisition: Mapping[str, JsonScalar] = field(default_factory=dict)
