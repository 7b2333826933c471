"""A researcher's request that a train may run: what the board is asked, before there is a policy.

Untrusted, unsigned, and binding nobody: what counts is a policy that names the same manifest and the same key. Also the states
of a request, as everybody names them, and the board's reasons to decline.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import Digest, Name, Sequence, StrictModel, load_yaml
from policies.policy import Purpose, Requester

MAX_REQUEST_BYTES = 64 * 1024
MAX_REMARK = 500


class RequestState(StrEnum):
    """How far a request is."""

    SUBMITTED = "submitted"
    IN_REVIEW = "in-review"
    APPROVED = "approved"
    DECLINED = "declined"
    ORDERED = "ordered"
    RUNNING = "running"
    RELEASED = "released"
    WITHDRAWN = "withdrawn"


class DeclineReason(StrEnum):
    """Why a board declines."""

    INCOMPLETE = "incomplete"
    PURPOSE = "purpose"
    LEGAL_GROUND = "legal-ground"
    CONSENT = "consent"
    DISCLOSURE = "disclosure"
    DATA = "data"
    TRAIN = "train"
    OTHER = "other"


class TrainAsked(StrictModel):
    """Which train; its bundle must have been submitted, so that the board can look at it."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", max_length=64)]
    manifest_digest: Digest = Field(description="Of train.yaml's bytes, as `pht-train pack` prints it.")


class TrainRequest(StrictModel):
    """The document `request.yaml`."""

    schema_version: Literal[1]
    train: TrainAsked
    purpose: Purpose
    requester: Requester = Field(description="Who would order runs, with which key, and whom the board asks.")
    collections: Sequence[Name] = Field(min_length=1, max_length=100)
    stations: Sequence[Name] = Field(
        default=(), max_length=1000, description="Which hospitals; none is: whichever have the collections."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name, values in (("collections", self.collections), ("stations", self.stations)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice")
        return self


class Remark(StrictModel):
    """What goes with taking up or withdrawing a request; for the other side to read."""

    text: Annotated[str, Field(max_length=MAX_REMARK)] = ""


class Declined(StrictModel):
    """Why a request is declined."""

    reason: DeclineReason
    text: Annotated[str, Field(min_length=1, max_length=MAX_REMARK)]


def read_request(data: bytes, *, what: str = "request.yaml") -> TrainRequest:
    """Read a request.

    Raises:
        DocumentError: it is none; names the key and the line.
    """
    return load_yaml(TrainRequest, data, what=what)
