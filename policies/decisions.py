"""What the public should know besides the policies in force: requests that the board refused, and what came of runs.

A target under the secretary's key. It permits nothing and no station reads it; the public register shows it.
"""

from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Moment, Name, Sequence, StrictModel, Text
from policies.policy import PlainSummary

DECISIONS_TARGET = "decisions.json"


class RefusedRequest(StrictModel):
    """A request that the board did not approve."""

    title: Text
    organisation: Text
    reason: PlainSummary
    when: Moment


class RunOutcome(StrictModel):
    """What came of a policy: a model, a publication, or that nothing did."""

    policy_id: Name
    version: Annotated[int, Field(ge=1)]
    summary: PlainSummary
    reference: Annotated[str, Field(pattern=r"^https://[^\s<>\"']{1,500}$")] | None = None
    when: Moment


class Decisions(StrictModel):
    """All of them, the newest last."""

    schema_version: Literal[1]
    refused: Sequence[RefusedRequest] = Field(default=(), max_length=10_000)
    outcomes: Sequence[RunOutcome] = Field(default=(), max_length=10_000)
