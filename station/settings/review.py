"""The section of station.toml about people who look at what leaves."""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import StrictModel


class ReviewSettings(StrictModel):
    """Whether a person at the hospital releases what trains return, beside what policies ask for."""

    trains: Literal["always", "training", "policy"] = Field(
        default="policy",
        description="Whose releases wait for a person: every train's, those that train, or only where the policy asks for it.",
    )
    people: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="How many different people have to release each."
    )
    hours: Annotated[int, Field(ge=1, le=24 * 90)] | None = Field(
        default=None,
        description="What nobody has released by then is withheld; without it, the policy's review_hours. A policy's fewer "
        "hours count.",
    )
