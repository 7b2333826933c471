"""Intake's settings; the station's settings file fills them."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from policies.documents import Name, Sequence, StrictModel
from station.handover import Code
from station.intake.consent.rules import ConsentRules
from station.pseudonymisation.options import DeidentificationOptions
from station.pseudonymisation.pixels.settings import PixelSettings

# Images whose pixels the cohort freeze knows how to read. Everything else waits in quarantine for a person:
# secondary captures and screen saves first, which carry burned-in text.
_SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage: masks, handed over as labels
)


class IntakeRetention(StrictModel):
    """How long intake keeps what; after each term a sweep removes it, and says how many in the audit.

    Attributes:
        quarantine: files that nobody released or discarded.
        unclaimed: staged batches whose collection nobody said.
        removed: pseudonymised files of removed instances, so that compute takes note first.
        backups: copies of intake's database that the operator put in its `backups` folder.
    """

    quarantine: timedelta = timedelta(days=90)
    unclaimed: timedelta = timedelta(days=14)
    removed: timedelta = timedelta(hours=24)
    backups: timedelta = timedelta(days=90)


class IntakeSettings(StrictModel):
    """How intake works.

    Attributes:
        project: the name under which pseudonyms are derived; another project's do not link to these.
        default_issuer: who issued patient ids that come without an issuer.
        sop_classes: what is taken up; the rest is quarantined.
        max_file_bytes: larger files are quarantined unread.
        collections: the collections a batch may belong to; None leaves the name to the caller.
        options: what each collection chose beside the Basic Profile.
        body_parts: per collection, the body part of images that name none.
        pixels: what the hospital says about burned-in text.
        workers: processes that meet the files; None for one per core.
        file_timeout_s: seconds one file may take.
        worker_memory_mib: address space of one worker.
        retention: how long intake keeps what.
        look_every_s: how often the service looks for batches that nobody announced.
        instances_per_entry: how many instances one handover entry names at most.
        consent: how the consent register is to be read.
    """

    project: Name = "registry"
    default_issuer: Annotated[str, Field(max_length=64)] = ""
    sop_classes: Sequence[str] = _SOP_CLASSES
    max_file_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    collections: Sequence[Name] | None = None
    options: dict[Name, DeidentificationOptions] = Field(default_factory=dict)
    body_parts: dict[Name, Code] = Field(default_factory=dict)
    pixels: PixelSettings = Field(default_factory=PixelSettings)
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    file_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 120.0
    worker_memory_mib: Annotated[int, Field(ge=512, le=1 << 22)] = 4096
    retention: IntakeRetention = Field(default_factory=IntakeRetention)
    look_every_s: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    instances_per_entry: Annotated[int, Field(ge=1, le=5000)] = 500
    consent: ConsentRules = ConsentRules()
