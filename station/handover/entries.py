"""What an entry of the handover says: the documents that intake signs and compute reads."""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Digest, Moment, Name, Sequence, StrictModel
from policies.profiles import ClinicalValue, FieldName, ProfileId

MAX_INSTANCE_BYTES = 4 << 30

PatientPseudonym = Annotated[str, Field(pattern=r"^P[A-Z2-7]{20}$")]
"""``P`` and 100 bits of a keyed hash in base32."""

RemappedUid = Annotated[str, Field(pattern=r"^2\.25\.[1-9][0-9]{0,38}$")]

WellKnownUid = Annotated[str, Field(pattern=r"^[0-2](?:\.(?:0|[1-9][0-9]*))+$", max_length=64)]

Code = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{0,16}$")]
"""A DICOM code string; empty where the file has none."""

Term = Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._+/()-]{0,64}$")]
"""Text that the pseudonymisation let pass, such as a manufacturer's name; empty where there is none."""

Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class Acquisition(StrictModel):
    """How an instance was acquired, for the hospital's own queries; after pseudonymisation, so nothing here is identified.

    Attributes:
        study_year: of the shifted Study Date.
        image_type: the first four values.
        recognizable_face: whether a face could be rebuilt from its series (thin head CT); None where nobody looked.
        pixels: whether burned-in text was looked for, and masked.
    """

    manufacturer: Term = ""
    model: Term = ""
    kernel: Term = ""
    slice_thickness_mm: Annotated[float, Field(ge=0, le=1000)] | None = None
    study_year: Annotated[int, Field(ge=1000, le=9999)] | None = None
    rows: Annotated[int, Field(ge=1, le=65_535)] | None = None
    columns: Annotated[int, Field(ge=1, le=65_535)] | None = None
    image_type: Sequence[Code] = ()
    recognizable_face: bool | None = None
    pixels: Literal["not-inspected", "inspected", "masked"] = "not-inspected"


class InstanceRecord(StrictModel):
    """One pseudonymised instance that compute may take up; replaces an earlier record of the same instance."""

    file: Digest
    size_bytes: Annotated[int, Field(ge=1, le=MAX_INSTANCE_BYTES)]
    collection: Name
    patient: PatientPseudonym
    study_uid: RemappedUid
    series_uid: RemappedUid
    sop_instance_uid: RemappedUid
    sop_class_uid: WellKnownUid
    transfer_syntax_uid: WellKnownUid
    modality: Code
    body_part: Code
    view_position: Code
    acquisition: Acquisition = Acquisition()


class Removal(StrictModel):
    """An instance that compute may use no longer, and why."""

    collection: Name
    sop_instance_uid: RemappedUid
    reason: Literal["rejected", "deleted", "quarantined", "retention"]


class Merge(StrictModel):
    """A patient who was known under two pseudonyms; `patient` is from now on `into`, everywhere."""

    patient: PatientPseudonym
    into: PatientPseudonym


class LabelRecord(StrictModel):
    """A mask drawn on one series: a pseudonymised DICOM SEG, or a NIfTI file with an empty header text.

    Attributes:
        series_uid: of the images that the mask lies on.
        names: what the mask's values 1, 2, ... mean, in order.
    """

    file: Digest
    size_bytes: Annotated[int, Field(ge=1, le=MAX_INSTANCE_BYTES)]
    format: Literal["dicom-seg", "nifti"]
    collection: Name
    patient: PatientPseudonym
    study_uid: RemappedUid
    series_uid: RemappedUid
    names: Sequence[Name] = Field(min_length=1)


class ClinicalRow(StrictModel):
    """The agreed clinical fields of one study of one patient; replaces an earlier row for the same study."""

    patient: PatientPseudonym
    study_uid: RemappedUid
    values: dict[FieldName, ClinicalValue]


class ConsentRecord(StrictModel):
    """What one patient decided for one purpose; a patient or purpose that is absent has decided nothing."""

    patient: PatientPseudonym
    purpose: Name
    decision: Literal["consent", "objection", "none"]
    date: Day


class InstancesContent(StrictModel):
    """Instances that have arrived."""

    kind: Literal["instances"] = "instances"
    instances: Sequence[InstanceRecord]


class ClinicalContent(StrictModel):
    """Clinical rows of one collection under one minimal-dataset profile."""

    kind: Literal["clinical"] = "clinical"
    collection: Name
    profile: ProfileId
    rows: Sequence[ClinicalRow]


class ConsentContent(StrictModel):
    """The whole consent state of the hospital; replaces every earlier one.

    Attributes:
        consent_sequence: grows by one with each state.
        source_date: the moment at which the hospital's source was read; its age is checked by rule (I7).
    """

    kind: Literal["consent"] = "consent"
    consent_sequence: Annotated[int, Field(ge=1)]
    source_date: Moment
    records: Sequence[ConsentRecord]


class RemovedContent(StrictModel):
    """Instances that were rejected or deleted at the source, or whose term is over."""

    kind: Literal["removed"] = "removed"
    removals: Sequence[Removal]


class MergedContent(StrictModel):
    """Patients whose pseudonyms became one."""

    kind: Literal["merged"] = "merged"
    merges: Sequence[Merge]


class LabelsContent(StrictModel):
    """Masks that have arrived; a later one for the same series and names replaces the earlier."""

    kind: Literal["labels"] = "labels"
    labels: Sequence[LabelRecord]


Content = InstancesContent | ClinicalContent | ConsentContent | RemovedContent | MergedContent | LabelsContent


class HandoverEntry(StrictModel):
    """What one file of the log signs."""

    version: Literal[1] = 1
    sequence: Annotated[int, Field(ge=1, le=99_999_999)]
    previous: Digest
    operation: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
    written_at: Moment
    content: Annotated[Content, Field(discriminator="kind")]
