"""The train manifest (`train.yaml`): what a researcher says a train is, needs and returns.

A manifest grants nothing. A station holds a train to it, within what the policy that names its digest permits.
"""

from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from policies.documents import Digest, Name, Sequence, StrictModel, Text
from policies.rows import ANSWERED, FAILURES, MAX_EDGES, OUTCOME, ColumnName, Edge, RowSchema, bin_names

MAX_ERROR_CODES = 32
MAX_TENSORS = 20_000
MAX_CELLS = 4096

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
    STATION = "station"
    """No program at all: the station's own code counts clinical data."""


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


class AggregateOutput(StrictModel):
    """One table that the station makes of a map train's rows: how many patients fall in each bin of a column."""

    key: MetricName
    column: ColumnName = Field(description=f"Of the rows, or {OUTCOME!r}: how the program ended.")
    edges: Sequence[Edge] = Field(
        default=(), max_length=MAX_EDGES, description="Between the bins of a number, increasing."
    )
    by: ColumnName | None = Field(default=None, description="A second column, of categories: a crosstab.")
    split: Split
    minimum_cell_count: Annotated[int, Field(ge=1)] = 10


class Outputs(StrictModel):
    """The closed list of what may leave, as the researcher declares it."""

    tensors: TensorOutputs | None = None
    metrics: Sequence[MetricOutput] = ()
    tables: Sequence[TableOutput] = ()
    membership_scores: bool = Field(
        default=False,
        description="The train answers 'score': how well the weights it is given fit each case, one number each.",
    )
    rows: RowSchema | None = Field(default=None, description="What a map train answers of each patient.")
    aggregates: Sequence[AggregateOutput] = Field(
        default=(), max_length=32, description="What the station makes of a map train's rows."
    )

    @model_validator(mode="after")
    def _aggregates_of_rows(self) -> "Outputs":
        problems = [f"{item.key} {found}" for item in self.aggregates if (found := self._problem_with(item))]
        keys = [item.key for item in self.aggregates]
        if len(set(keys)) != len(keys):
            problems.append("an aggregate is named twice")
        edges = {(item.split, item.column): item.edges for item in self.aggregates}
        if any(edges[item.split, item.column] != item.edges for item in self.aggregates):
            # Counts below 0.5 and below 0.51 differ by the patients in between, however few.
            problems.append("two aggregates of a column in one split have other edges")
        if (self.rows is None) != (not self.aggregates):
            problems.append("rows and aggregates come together: rows leave as aggregates alone")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problem_with(self, item: AggregateOutput) -> str | None:
        """Return why an aggregate cannot be made of the rows, or None."""
        column = None if self.rows is None else self.rows.column(item.column)
        by = None if self.rows is None or item.by is None else self.rows.column(item.by)
        if item.split is Split.TESTING:
            return "is of testing cases, and an analysis is given none"
        if item.column == OUTCOME:
            return None if not item.edges and item.by is None else "counts outcomes, without edges and 'by'"
        if column is None:
            return "counts a column that the rows do not have"
        if item.by is not None and (by is None or by.type != "category" or item.by == item.column):
            return "is by a column that is no other category column of the rows"
        if (column.type == "category") == bool(item.edges):
            return "has edges for a number, and none for a category"
        ends = (column.minimum, *item.edges, column.maximum)
        rising = all(low is not None and high is not None and low < high for low, high in pairwise(ends))
        if item.edges and not rising:
            return "has edges that do not increase between the column's minimum and maximum"
        lines, cells = len(bin_names(column, item.edges)), 1 if by is None else len(bin_names(by, ()))
        return None if lines * cells <= MAX_CELLS else f"has more than {MAX_CELLS} cells"

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
    gpu_memory_mib: Annotated[int, Field(ge=0, le=1 << 20)] = Field(
        default=0, description="With a GPU: the least memory that it must have."
    )
    message_timeout_s: Annotated[int, Field(ge=1, le=86_400)] = 600

    @model_validator(mode="after")
    def _floor_of_something(self) -> "Resources":
        if self.gpu == "none" and self.gpu_memory_mib:
            raise ValueError("gpu_memory_mib asks for memory of a GPU, gpu says none")
        return self


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
        if self.outputs.membership_scores and self.kind is not TrainKind.TRAINING:
            raise ValueError("membership_scores are of updates, and only a training train returns one")
        if problem := _problem_with_map(self):
            raise ValueError(problem)
        return self

    @property
    def program(self) -> Literal["flower", "command", "map"] | None:
        """How the station speaks to what is in the image; None where no program runs."""
        match self.interface:
            case Interface.FLOWER:
                return "flower"
            case Interface.COMMAND:
                return "command"
            case Interface.MAP:
                return "map"
            case Interface.STATION:
                return None

    def aggregate_lines(self, item: AggregateOutput) -> tuple[str, ...]:
        """Return what the lines of an aggregate's table are, in order."""
        if item.column == OUTCOME:
            return (ANSWERED, *self.error_codes, *FAILURES)
        column = None if self.outputs.rows is None else self.outputs.rows.column(item.column)
        return () if column is None else bin_names(column, item.edges)

    def aggregate_columns(self, item: AggregateOutput) -> tuple[str, ...]:
        """Return what the columns of an aggregate's table are, in order."""
        by = None if self.outputs.rows is None or item.by is None else self.outputs.rows.column(item.by)
        return ("patients",) if by is None else bin_names(by, ())

    def image_digest(self, variant: Literal["cpu", "cuda"] = "cpu") -> str | None:
        """Return the config digest of a variant, or None where the train has none."""
        return next((image.config_digest for image in self.images if image.variant == variant), None)


def _problem_with_map(manifest: TrainManifest) -> str | None:
    """Return what contradicts itself about a train of one patient at a time, or None."""
    outputs = manifest.outputs
    if manifest.interface is not Interface.MAP:
        return None if outputs.rows is None else "rows are what a map train returns, and no other"
    if manifest.kind is not TrainKind.ANALYSIS:
        return "a map train is an analysis"
    if outputs.rows is None:
        return "a map train declares its rows and what the station makes of them"
    if outputs.metrics or outputs.tables:
        return "a map train states no metrics and no tables: the station counts its rows"
    if manifest.resources.gpu != "none":
        return "a map train is given no GPU: each patient has a container for a moment"
    if outputs.rows.patient_timeout_s > manifest.resources.message_timeout_s:
        return "patient_timeout_s is longer than message_timeout_s, which holds for all patients together"
    return None
