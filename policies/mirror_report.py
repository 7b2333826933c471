"""The mirror report of a run for one hospital: its own values and tables beside the pooled ones, without names.

The orchestrator writes it from what the stations released, the station fetches its own and shows it. What is in it lets no hospital
work out another's single value or table (`orchestrator.results.pooling` and `orchestrator.federation.told_tables` say how far that
holds). Newer orchestrators may add fields.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.documents import Digest, Name, parse_json
from policies.errors import PhtError, WireError

MAX_REPORT_BYTES = 4 << 20

Words = Annotated[str, Field(max_length=4000)]
Code = Annotated[str, Field(pattern=r"^[A-Z0-9_]{0,64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1 << 40)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class MirrorPoint(_Part):
    """One round's value."""

    round: Count
    own: Number | None
    pooled: Number | None


class MirrorValue(_Part):
    """One number over the rounds, and where this hospital stands in the last of them that it took part in."""

    stage: Literal["train", "evaluate", "analyse"]
    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    decimals: Annotated[int, Field(ge=0, le=9)]
    round: Count
    own: Number | None = Field(description="None where this hospital released none.")
    pooled: Number | None = Field(
        description="Over all hospitals, this one too, weighted by examples; None where it is not told."
    )
    hospitals: Count = Field(description="How many released it.")
    code: Code = Field(default="", description="Why the pooled value is not told: `policies.withheld`.")
    others: Count = Field(default=0, description="How many others the spread is of; 0 where it is not told.")
    lowest: Number | None = None
    median: Number | None = None
    highest: Number | None = None
    course: Annotated[list[MirrorPoint], Field(max_length=10_000)] = Field(default_factory=list)


Cell = int | Number
MirrorCells = Annotated[
    list[Annotated[list[Cell | None], Field(max_length=4096)]],
    Field(max_length=4096),
]
Label = Annotated[str, Field(max_length=200)]


class MirrorTable(_Part):
    """One table of this hospital beside that of all hospitals together; cells that are hidden are None."""

    stage: Literal["train", "evaluate", "analyse"]
    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    measure: Literal["count", "sum", "quantiles"]
    column: Label
    by: Label | None
    round: Count
    lines: Annotated[list[Label], Field(max_length=4096)]
    columns: Annotated[list[Label], Field(max_length=4096)]
    own: MirrorCells
    pooled: MirrorCells | None = Field(
        description="Of all hospitals, this one too; of quantiles the bounds. None where it is not told."
    )
    hospitals: Count = Field(description="How many released it.")
    code: Code = Field(default="", description="Why the pooled table is not told: `policies.withheld`.")


class MirrorReport(_Part):
    """A hospital's report of one run."""

    schema_version: Literal[1]
    order_digest: Digest
    station: Name
    train: Words
    train_title: Words
    policy_id: Name
    policy_version: Count
    policy_title: Words | None
    summary_nl: Words | None
    summary_en: Words | None
    state: Literal["finished", "failed", "stopped"]
    rounds: Count
    rounds_ordered: Count
    rounds_of_station: Count
    values: Annotated[list[MirrorValue], Field(max_length=1000)]
    tables: Annotated[list[MirrorTable], Field(max_length=1000)] = Field(
        default_factory=list, description="Orchestrators of earlier versions send none."
    )


def read_report(data: bytes) -> MirrorReport:
    """Read a report as it came from the orchestrator.

    Raises:
        WireError: it is none.
    """
    try:
        parse_json(data, what="mirror report", max_bytes=MAX_REPORT_BYTES)
        return MirrorReport.model_validate_json(data)
    except (PhtError, ValidationError) as error:
        raise WireError("the orchestrator's answer is no mirror report") from error


def cell_text(cell: float | None, hidden: str) -> str:
    """Return a table's cell as it is shown."""
    return hidden if cell is None else f"{cell:.12g}"
