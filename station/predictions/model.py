"""What a prediction is made of, by the names of the pseudonymised store: values only, each held to its form.

Read from pseudonymised files in a process apart (`maker_process`), and given to it again to make objects of. Pure.
"""

from enum import IntEnum
from typing import Annotated, Final

from pydantic import Field

from policies.documents import Digest, Name, Sequence, StrictModel
from policies.predictions import Prediction, PredictionName
from station.cohorts.series import SliceHeader

MARK: Final = "RESEARCH ONLY - NOT FOR DIAGNOSIS"
MANUFACTURER: Final = "pht-radiology"


class Verb(IntEnum):
    """What is asked of the process that makes objects."""

    READ = 1
    SEGMENT = 2
    MEASURE = 3


Uid = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
Plain16 = Annotated[str, Field(pattern=r"^[ -\[\]-~]{0,16}$")]
Plain64 = Annotated[str, Field(pattern=r"^[ -\[\]-~]{0,64}$")]
Position = Annotated[Sequence[float], Field(min_length=3, max_length=3)]


class ImageReference(StrictModel):
    """What an object says of the image that it lies on: names of the pseudonymised store, and the study they are in.

    Attributes:
        frame_of_reference_uid: empty for a radiograph without one.
        patient_orientation: of a radiograph, which way its rows and columns run.
    """

    sop_class_uid: Uid
    sop_instance_uid: Uid
    study_uid: Uid
    series_uid: Uid
    frame_of_reference_uid: Uid | None = None
    study_date: Annotated[str, Field(pattern=r"^([0-9]{8})?$")] = ""
    study_time: Annotated[str, Field(pattern=r"^([0-9]{6}(\.[0-9]{1,6})?)?$")] = ""
    study_id: Plain16 = ""
    accession_number: Plain16 = ""
    patient_sex: Annotated[str, Field(pattern=r"^[MFO]?$")] = ""
    patient_orientation: Annotated[
        Sequence[Annotated[str, Field(pattern=r"^[ALPRHF]{1,3}$")]], Field(max_length=2)
    ] = ()


class Read(StrictModel):
    """One file: what an object refers to, and where it lies."""

    image: ImageReference
    header: SliceHeader


class Plane(StrictModel):
    """One image of a series, in the order of the label map's slices."""

    sop_instance_uid: Uid
    position: Position | None = None


class Images(StrictModel):
    """The images that an object lies on.

    Attributes:
        patient: the project's pseudonym, as the catalogue has it; never what a file says.
        first: what all of them share.
        header: how the first lies.
        planes: each of them.
    """

    patient: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    first: ImageReference
    header: SliceHeader
    planes: Annotated[Sequence[Plane], Field(min_length=1)]


class Origin(StrictModel):
    """By whom and when.

    Attributes:
        series_uid, instance_uid: of the object that is made.
        moment: ``YYYYMMDDhhmmss``, UTC.
        run: a word by which the hospital finds the run; no name of the requester's.
    """

    series_uid: Uid
    instance_uid: Uid
    moment: Annotated[str, Field(pattern=r"^[0-9]{14}$")]
    station: Name
    train: Name
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
    organisation: Plain64
    image_config_digest: Digest
    order_digest: Digest
    round: Annotated[int, Field(ge=0)]


class Wanted(StrictModel):
    """One object to make.

    Attributes:
        shape: of the label map as the train stated it: columns, rows, and slices of a volume.
        measured: of measurements, the numbers by name; the others were not made.
    """

    prediction: Prediction
    images: Images
    origin: Origin
    shape: Annotated[Sequence[Annotated[int, Field(ge=1, le=65_535)]], Field(min_length=2, max_length=3)]
    measured: dict[PredictionName, float] = Field(default_factory=dict)
