"""What a train returns, as its manifest declares it: the closed list of what may leave, and what stays at each hospital.

Tensors and metrics are the train's own word; rows leave as the tables alone that the station makes of them (`policies.aggregates`);
predictions never leave (`policies.predictions`). A declaration grants nothing.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from policies.aggregates import AggregateOutput, problem_with
from policies.documents import Sequence, StrictModel
from policies.predictions import MAX_PREDICTIONS, Prediction
from policies.rows import RowSchema
from policies.splits import Split

MAX_TENSORS = 20_000
MAX_WHOLE = 1 << 53
"""Whole numbers up to here are told apart by every reader of JSON, and a bound beyond it is none that a float can say."""

MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
TensorPattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*\-]{1,200}$")]
DType = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]


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
        ends = (self.minimum, self.maximum)
        if self.type == "int" and not all(end.is_integer() and abs(end) <= MAX_WHOLE for end in ends):
            raise ValueError("the bounds of an int are whole numbers, between -2^53 and 2^53")
        return self


class Outputs(StrictModel):
    """The closed list of what may leave, as the researcher declares it; and what stays at each hospital."""

    tensors: TensorOutputs | None = None
    metrics: Sequence[MetricOutput] = ()
    membership_scores: bool = Field(
        default=False,
        description="The train answers 'score': how well the weights it is given fit each case, one number each.",
    )
    rows: RowSchema | None = Field(
        default=None, description="What there is of each patient: the train's own columns, and clinical ones."
    )
    aggregates: Sequence[AggregateOutput] = Field(
        default=(), max_length=32, description="What the station makes of the rows; they leave as this alone."
    )
    predictions: Sequence[Prediction] = Field(
        default=(),
        max_length=MAX_PREDICTIONS,
        description="The train answers 'predict': what it marks or measures in one image. It never leaves: where policy and "
        "hospital want it, the hospital keeps it as DICOM SEG or SR.",
    )

    @model_validator(mode="after")
    def _aggregates_of_rows(self) -> "Outputs":
        problems = [
            f"{item.key} {found}" for item in self.aggregates if (found := problem_with(item, self.rows))
        ]
        keys = [item.key for item in self.aggregates]
        if len(set(keys)) != len(keys):
            problems.append("an aggregate is named twice")
        binned = [item for item in self.aggregates if item.measure != "sum"]
        edges = {(item.split, item.column): item.edges for item in binned}
        if any(edges[item.split, item.column] != item.edges for item in binned):
            # Counts below 0.5 and below 0.51 differ by the patients in between, however few.
            problems.append("two aggregates of a column in one split have other edges")
        if (self.rows is None) != (not self.aggregates):
            problems.append("rows and aggregates come together: rows leave as aggregates alone")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @field_validator("metrics")
    @classmethod
    def _once(cls, value: tuple[MetricOutput, ...]) -> tuple[MetricOutput, ...]:
        named = [(item.stage, item.key) for item in value]
        if len(set(named)) != len(named):
            raise ValueError("names an output twice")
        return value
