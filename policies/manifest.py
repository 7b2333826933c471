"""The train manifest (`train.yaml`): what a researcher says a train is, needs and returns.

A manifest grants nothing. A station holds a train to it, within what the policy that names its digest permits.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from policies.acquisition import AcquisitionField
from policies.aggregates import AggregateOutput, ToldValues, columns_of, lines_of, told_values
from policies.documents import Digest, Name, Sequence, StrictModel, Text
from policies.networks import Network
from policies.outputs import MetricName, Outputs
from policies.predictions import problem_with_predictions
from policies.rows import MAX_PATIENTS
from policies.splits import Split

MAX_ERROR_CODES = 32

PROXIMAL_MU: Final = "proximal-mu"
"""How Flower's apps are told the weight of FedProx's proximal term: the one hyperparameter whose name has a hyphen."""

HyperparameterName = Annotated[str, Field(pattern=rf"^([a-z][a-z0-9_]{{0,63}}|{PROXIMAL_MU})$")]
ErrorCode = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,47}$")]


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


class DataNeeds(StrictModel):
    """What the train asks to see."""

    modalities: Sequence[Modality] = Field(min_length=1)
    body_part: Literal["CHEST"] = "CHEST"
    profile: Annotated[str, Field(pattern=r"^[a-z0-9-]+@[0-9]+$")] = Field(
        description="Minimal-dataset profile and version, for example thorax-1@1."
    )
    clinical_fields: Sequence[Name | MetricName] = ()
    acquisition_fields: Sequence[AcquisitionField] = Field(
        default=(),
        description="How images were acquired, coarse; columns of clinical.csv beside the clinical fields.",
    )
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

    @model_validator(mode="after")
    def _other_names(self) -> "DataNeeds":
        fields = set(self.acquisition_fields)
        if len(fields) != len(self.acquisition_fields):
            raise ValueError("names an acquisition field twice")
        if both := fields & {*self.clinical_fields, *([self.label] if self.label else [])}:
            raise ValueError(
                f"asks for {', '.join(sorted(both))} as a clinical field and as an acquisition field"
            )
        return self


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
    hyperparameters: dict[HyperparameterName, HyperparameterSpec] = Field(default_factory=dict)
    outputs: Outputs
    error_codes: Sequence[ErrorCode] = Field(default=(), max_length=MAX_ERROR_CODES)
    resources: Resources
    contact: Contact
    licence: Text
    network: Network | None = Field(
        default=None,
        description="Of a training train: what its tensors are the weights of; shown with the result.",
    )
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
        if self.network is not None and self.kind is TrainKind.ANALYSIS:
            raise ValueError("an analysis has no network")
        if self.outputs.membership_scores and self.kind is not TrainKind.TRAINING:
            raise ValueError("membership_scores are of updates, and only a training train returns one")
        if problem := _problem_with_rows(self) or _problem_with_predictions(self):
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
        return lines_of(item, self.outputs.rows, self.error_codes)

    def aggregate_columns(self, item: AggregateOutput) -> tuple[str, ...]:
        """Return what the columns of an aggregate's table are, in order."""
        return columns_of(item, self.outputs.rows)

    def aggregate_values(
        self, item: AggregateOutput, count_rounding: int, patients: int = MAX_PATIENTS
    ) -> tuple[ToldValues, ...]:
        """Return how many numbers an aggregate's table tells, and how many different ones each can be at most."""
        return told_values(item, self.outputs.rows, self.error_codes, count_rounding, patients)

    @property
    def row_splits(self) -> tuple[Split, ...]:
        """Of whose patients a train that is asked for all rows at once states them: the splits that are counted, in order."""
        return tuple(split for split in Split if any(item.split is split for item in self.outputs.aggregates))

    def image_digest(self, variant: Literal["cpu", "cuda"] = "cpu") -> str | None:
        """Return the config digest of a variant, or None where the train has none."""
        return next((image.config_digest for image in self.images if image.variant == variant), None)


def _problem_with_rows(manifest: TrainManifest) -> str | None:
    """Return what contradicts itself about rows and how they are asked for, or None."""
    outputs, interface = manifest.outputs, manifest.interface
    for aggregate in outputs.aggregates:
        if (aggregate.split is Split.TESTING) != (manifest.kind is TrainKind.EVALUATION):
            return f"{aggregate.key} is of {aggregate.split} patients, and an {manifest.kind} train is given none"
    if interface is Interface.MAP:
        return _problem_with_map(manifest)
    if interface is Interface.STATION:
        return _problem_with_station(manifest)
    if outputs.rows is None:
        return None
    if manifest.kind is TrainKind.TRAINING:
        return "a training train has no rows: only analyses and evaluations are counted"
    if not outputs.rows.of_train:
        return "the station fills in every column, so there is nothing to run: the interface is station"
    return _problem_with_clinical(manifest)


def _problem_with_map(manifest: TrainManifest) -> str | None:
    """Return what contradicts itself about a train of one patient at a time, or None."""
    outputs = manifest.outputs
    if manifest.kind is not TrainKind.ANALYSIS:
        return "a map train is an analysis"
    if outputs.rows is None:
        return "a map train declares its rows and what the station makes of them"
    if outputs.metrics:
        return "a map train states no metrics: the station counts its rows"
    if not outputs.rows.of_train:
        return "the station fills in every column, so there is nothing to run: the interface is station"
    if manifest.resources.gpu != "none":
        return "a map train is given no GPU: each patient has a container for a moment"
    if outputs.rows.patient_timeout_s > manifest.resources.message_timeout_s:
        return "patient_timeout_s is longer than message_timeout_s, which holds for all patients together"
    return _problem_with_clinical(manifest)


def _problem_with_station(manifest: TrainManifest) -> str | None:
    """Return what contradicts itself about a train without a program, or None."""
    outputs = manifest.outputs
    if manifest.kind is not TrainKind.ANALYSIS:
        return "a train without a program (interface station) is an analysis"
    if outputs.rows is None:
        return "a train without a program declares the clinical columns that the station counts"
    if outputs.rows.of_train:
        return "no program runs (interface station), so every column has source: clinical, acquisition or combined"
    if outputs.metrics or manifest.hyperparameters or manifest.error_codes or outputs.membership_scores:
        return "no program runs (interface station): no metrics, hyperparameters, error codes or scores"
    if manifest.data.masks or manifest.data.representation != "volume":
        return "no program runs (interface station): nobody would read masks or DICOM files"
    if manifest.resources.gpu != "none":
        return "no program runs (interface station), so there is nothing to give a GPU to"
    return _problem_with_clinical(manifest)


def _problem_with_predictions(manifest: TrainManifest) -> str | None:
    """Return what contradicts itself about what a train marks and measures in images, or None."""
    predictions = manifest.outputs.predictions
    if not predictions:
        return None
    if manifest.interface not in {Interface.FLOWER, Interface.COMMAND}:
        return "predictions are asked of a warm train: the interface is flower or command"
    if manifest.data.representation != "volume":
        return "predictions lie on the images' own grid: data.representation is volume"
    return problem_with_predictions(predictions)


def _problem_with_clinical(manifest: TrainManifest) -> str | None:
    rows, needs = manifest.outputs.rows, manifest.data
    asked = {*needs.clinical_fields, *([needs.label] if needs.label else [])}
    missing = [] if rows is None else [column.name for column in rows.clinical if column.name not in asked]
    if missing:
        return f"clinical columns that data.clinical_fields does not ask for: {', '.join(missing)}"
    unasked = (
        [] if rows is None else [c.name for c in rows.acquisition if c.name not in needs.acquisition_fields]
    )
    if unasked:
        return f"acquisition columns that data.acquisition_fields does not ask for: {', '.join(unasked)}"
    return None
