"""The section of station.toml about the station's statements of its own records."""

from typing import Annotated

from pydantic import Field

from policies.documents import StrictModel


class StatementSettings(StrictModel):
    """What the station states of its records, for the orchestrator and the board's witness to countersign."""

    every_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=300.0, description="Seconds between two statements."
    )
    after_release_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        default=5.0, description="What was released is stated within this many seconds more."
    )
    unwitnessed_limit_s: Annotated[float, Field(ge=60, le=604_800)] = Field(
        default=3600.0,
        description="Once the witness has vouched for this station: nothing runs when what it last vouched for is older, "
        "which is the most that a restored station could miss.",
    )
