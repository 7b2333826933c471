"""The train manifest (`train.yaml`): what a researcher says a train is, needs and returns.

A manifest grants nothing. A station holds a train to it, within what the policy that names its digest permits.
"""

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from policies.documents import Digest, Name, Sequence, StrictModel, Text

MAX_ERROR_CODES = 32
MAX_TENSORS = 20_000

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ErrorCode = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,47}$")]
TensorPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*\-]{1,200}$")]
DType = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]


class TrainKind(StrEnum):
    """What a train is for."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    ANALYSIS = "analysis"


class Interface(StrEnum):
    """How the station speaks to what is in the image (DESIGN section 6)."""

    FLOWER = "flower"
    COMMAND = "command"
    MAP = "map"


class Modality(StrEnum):
    """DICOM modalities (PS3.3 C.7.3.1.1.1) that stations serve."""

    CT = "CT"
    DX = "DX"
    CR = "CR"


class Split(StrEnum):
    """The three parts of a cohort, by patient."""

    TRAINING = "training"
    VALIDATION = "validation"
    TESTING = "testing"


class DataNeeds(StrictModel):
    """What the train asks to see."""

    modalities: Sequence[Modality] = Field(min_length=1)
    body_part: Literal["CHEST"] = "CHEST"
    profile: Annotated[str, Field(pattern=r"^[a-z0-9-]+@[0-9]+$")] = Field(
        description="Minimal-dataset profile and version, for example thorax-1@1."
    )
    clinical_fields: Sequence[Name | MetricName] = ()
    label: MetricName | None = Field(default=None, description="The clinical field used as label.")
    masks: Sequence[Name] = Field(
        default=(),
        max_length=255,
        description="Segmentations by name; a label map has 1 for the first, 2 for the second, and so on.",
    )
    view_positions: Sequence[Annotated[str, Field(pattern=r"^[A-Z]{2,3}$")]] = Field(
        default=(), description="Radiographs of these views only (PA, AP, LL, ...); empty for all."
    )
    representation: Literal["volume", "dicom"] = "volume"

    @field_validator("masks")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a mask twice")
        return value


class HyperparameterSpec(StrictModel):
    """Type and range of one hyperparameter."""

    type: Literal["int", "float", "bool"]
    minimum: float | int | None = None
    maximum: float | int | None = None
    default: float | int | bool

    @model_validator(mode="after")
    def _consistent(self) -> "HyperparameterSpec":
        if self.type != "bool" and (self.minimum is None or self.maximum is None):
            raise ValueError("a number needs both minimum and maximum")
        if problem := self.problem_with(self.default):
            raise ValueError(f"default {problem}")
        return self

    def problem_with(self, value: object) -> str | None:
        """Return why `value` is not allowed, or None."""
        if self.type == "bool":
            return None if isinstance(value, bool) else "is not true or false"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        if self.type == "int" and not isinstance(value, int):
            return "is not a whole number"
        if self.minimum is not None and value < self.minimum:
            return f"is below {self.minimum}"
        if self.maximum is not None and value > self.maximum:
            return f"is above {self.maximum}"
        return None


class TensorSpec(StrictModel):
    """One named tensor."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,200}$")]
    shape: Sequence[Annotated[int, Field(ge=0, le=1 << 31)]]
    dtype: DType
    role: Literal["parameter", "buffer"] = "parameter"


class TensorOutputs(StrictModel):
    """The tensors a training message returns: those of the inbound weights, or a fixed list."""

    layout: Literal["same-as-input", "listed"]
    buffers: Sequence[TensorPattern] = Field(
        default=(), description="Shell patterns over names; what matches is a buffer (BatchNorm statistics)."
    )
    listed: Sequence[TensorSpec] = Field(default=(), max_length=MAX_TENSORS)

    @model_validator(mode="after")
    def _consistent(self) -> "TensorOutputs":
        if (self.layout == "listed") != bool(self.listed):
            raise ValueError("'listed' names its tensors, 'same-as-input' lists none")
        return self

    def role_of(self, name: str) -> Literal["parameter", "buffer"]:
        """Return the declared role of a tensor of a `same-as-input` layout."""
        return "buffer" if any(fnmatchcase(name, pattern) for pattern in self.buffers) else "parameter"


class MetricOutput(StrictModel):
    """One number a message returns."""

    key: MetricName
    stage: Literal["train", "evaluate", "analyse"]
    type: Literal["float", "int"] = "float"
    minimum: float
    maximum: float
    decimals: Annotated[int, Field(ge=0, le=9)] = 4
    split: Split = Field(
        description="The patients it is computed on: the minimum count is asked of this split."
    )
    required: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "MetricOutput":
        if self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self


class TableOutput(StrictModel):
    """One table of counts a message returns: rows of whole numbers, of a fixed shape."""

    key: MetricName
    stage: Literal["train", "evaluate", "analyse"]
    columns: Sequence[MetricName] = Field(min_length=1, max_length=64)
    rows: Annotated[int, Field(ge=1, le=1000)]
    split: Split
    minimum_cell_count: Annotated[int, Field(ge=1)] = 5


class Outputs(StrictModel):
    """The closed list of what may leave, as the researcher declares it."""

    tensors: TensorOutputs | None = None
    metrics: Sequence[MetricOutput] = ()
    tables: Sequence[TableOutput] = ()

    @field_validator("metrics", "tables")
    @classmethod
    def _once(cls, value: tuple[MetricOutput | TableOutput, ...]) -> tuple[MetricOutput | TableOutput, ...]:
        named = [(item.stage, item.key) for item in value]
        if len(set(named)) != len(named):
            raise ValueError("names an output twice")
        return value


class Resources(StrictModel):
    """What the container asks for; the station's ceilings and the policy bound it."""

    memory_mib: Annotated[int, Field(ge=64, le=1 << 20)]
    cpus: Annotated[float, Field(gt=0, le=256)]
    pids: Annotated[int, Field(ge=8, le=4096)] = 256
    scratch_mib: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    gpu: Literal["none", "optional", "required"] = "none"
    message_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 600


class ImageVariant(StrictModel):
    """One build of the train."""

    variant: Literal["cpu", "cuda"]
    config_digest: Digest


class Contact(StrictModel):
    """Who answers questions about the train."""

    name: Text
    organisation: Text
    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=200)]


class TrainManifest(StrictModel):
    """A train as its researcher describes it; `images` is filled in by `pht-train pack`."""

    schema_version: Literal[1]
    name: Name
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")]
    title: Text
    kind: TrainKind
    interface: Interface
    data: DataNeeds
    hyperparameters: dict[MetricName, HyperparameterSpec] = Field(default_factory=dict)
    outputs: Outputs
    error_codes: Sequence[ErrorCode] = Field(default=(), max_length=MAX_ERROR_CODES)
    resources: Resources
    contact: Contact
    licence: Text
    source_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$|^unversioned$")]
    images: Sequence[ImageVariant] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "TrainManifest":
        if self.kind is TrainKind.TRAINING and self.outputs.tensors is None:
            raise ValueError("a training train declares its tensors")
        if self.kind is not TrainKind.TRAINING and self.outputs.tensors is not None:
            raise ValueError(f"an {self.kind} train returns no tensors")
        if self.kind is TrainKind.TRAINING and any(m.split is Split.TESTING for m in self.outputs.metrics):
            raise ValueError(
                "a training train is given no testing cases, so no metric can be computed on them"
            )
        return self

    def image_digest(self, variant: Literal["cpu", "cuda"] = "cpu") -> str | None:
        """Return the config digest of a variant, or None where the train has none."""
        return next((image.config_digest for image in self.images if image.variant == variant), None)
