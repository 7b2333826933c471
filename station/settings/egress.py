"""The section of station.toml about the records of what left."""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import StrictModel


class EgressSettings(StrictModel):
    """How long what left is kept, and against whose earlier releases a new one is held."""

    keep_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        default=365,
        description="Released arrays and replies, so that a repeated instruction gets the same bytes; after that it is "
        "refused. The ledger, digests and counters stay.",
    )
    compare: Literal["requester", "everyone"] = Field(
        default="requester",
        description="A figure is held against earlier ones of the same requester (key or organisation), or of all: "
        "requesters may tell each other.",
    )
    differences_years: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None,
        description="How long it is kept which patients a figure counted (pseudonyms, as numbers). Without it, for ever: after "
        "that, a figure of all but one beside one of all is not seen any more.",
    )
