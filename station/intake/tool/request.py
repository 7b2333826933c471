"""What the tool is asked to do, and what it says of it afterwards: counts and reasons, never a name or a number."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Moment, Name, Sequence, StrictModel
from station.pseudonymisation.faults import PseudonymisationFault
from station.pseudonymisation.options import DEFAULT_OPTIONS, DeidentificationOptions


class ToolFault(StrEnum):
    """Why a file has no output, beside the reasons of the engine."""

    TOO_LARGE = "too-large"
    UNREADABLE_SOURCE = "source-unreadable"
    SOP_CLASS_NOT_ACCEPTED = "sop-class-not-accepted"
    PIXELS_MISSING = "pixels-missing"
    INSTANCE_CONFLICT = "instance-conflict"
    STUDY_PATIENT_MISMATCH = "study-patient-mismatch"
    RECOGNIZABLE_FACE = "recognizable-face"
    WORKER_DIED = "worker-died"


PixelMode = Literal["require", "detect-only", "off"]
Reason = ToolFault | PseudonymisationFault


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """What to pseudonymise, and how.

    Attributes:
        source: a folder, or a zip file.
        target: a folder that is empty, absent, or was begun by the same request.
        key: the key file.
        project: pseudonyms of one project do not link to another's.
        default_issuer: the issuer of patient ids that come without one.
        pixels: whether burned-in text and faces are looked for, and text masked, as `PixelSettings.inspect`.
        keep_faces: whether images in which a face could be made out have an output.
        jobs: how many processes work.
        max_file_bytes: larger files are left out.
    """

    source: Path
    target: Path
    key: Path
    project: Name = "registry"
    default_issuer: str = ""
    options: DeidentificationOptions = DEFAULT_OPTIONS
    pixels: PixelMode = "require"
    keep_faces: bool = False
    jobs: int = 1
    max_file_bytes: int = 2 << 30


class ToolCard(StrictModel):
    """What a target folder was begun with; another request does not go on with it.

    Attributes:
        source: a keyed digest of the source's path, which itself is not told.
    """

    schema_name: Annotated[Literal["pht-pseudonymised-folder"], Field(alias="schema")] = (
        "pht-pseudonymised-folder"
    )
    key_id: str
    key_version: int
    project: str
    default_issuer: str
    options: DeidentificationOptions
    pixels: PixelMode
    keep_faces: bool
    recipe: int
    source: str


class ToolReport(StrictModel):
    """What came of it, in counts and reasons."""

    schema_name: Annotated[Literal["pht-pseudonymisation-report"], Field(alias="schema")] = (
        "pht-pseudonymisation-report"
    )
    finished_at: Moment
    profile: str
    codes: Sequence[str]
    recipe: int
    key_id: str
    key_version: int
    project: str
    files: int
    written: int
    duplicates: int
    skipped: int
    failed: dict[str, int]
    patients: int
    studies: int
    series: int
    resumed: int
    seconds: float

    def readable(self) -> str:
        """Return the report as a person reads it."""
        lines = [
            f"Pseudonymised {self.written} of {self.files} files.",
            f"{self.patients} patients, {self.studies} studies, {self.series} series.",
            f"{self.profile}; codes of CID 7050: {', '.join(self.codes)}.",
            f"Project {self.project}; key {self.key_id} v{self.key_version}; recipe {self.recipe}.",
            f"Duplicates: {self.duplicates}. Passed over (links, DICOMDIR and the like): {self.skipped}.",
        ]
        if self.resumed:
            lines.append(f"Done already when this run began: {self.resumed}.")
        lines.append("No output:" if self.failed else "Every file that was taken up has its output.")
        lines += [f"  {count:6}  {reason}" for reason, count in sorted(self.failed.items())]
        return "\n".join(lines) + "\n"
