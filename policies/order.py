"""The run order: the requester's signed word for one run under one policy.

Stations run only what an order they have verified says, each (round, kind) once. Several Flower runs may carry one
order after a crash; a finished order is spent.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from policies.documents import Digest, Moment, Name, Sequence, StrictModel, load_json
from policies.manifest import HyperparameterName
from policies.outputs import MetricName
from policies.signing import unsafe_payload
from policies.strategies import StrategyName

PAYLOAD_TYPE = "application/vnd.pht.run-order+json"

HyperparameterValue = int | float | bool
Stage = Literal["train", "evaluate", "analyse"]


class BlobReference(StrictModel):
    """Bytes by digest and size."""

    digest: Digest
    size: Annotated[int, Field(ge=0)]


class StrategyChoice(StrictModel):
    """An aggregation strategy by Flower's name (`policies.strategies`); what `parameters` leaves out is at its default."""

    name: StrategyName
    parameters: dict[MetricName, int | float] = Field(default_factory=dict, max_length=16)


class RunOrder(StrictModel):
    """One run: signed by the key the policy names."""

    schema_version: Literal[1]
    order_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    policy_id: Name
    policy_version: Annotated[int, Field(ge=1)]
    policy_digest: Digest = Field(description="Of the policy file's bytes, as signed by the members.")
    manifest_digest: Digest
    image_config_digest: Digest
    hyperparameters: dict[HyperparameterName, HyperparameterValue]
    initial_weights: BlobReference | None
    stations: Sequence[Name] = Field(min_length=1, max_length=1000)
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    stages: Sequence[Stage] = Field(min_length=1, max_length=2, description="What each round asks, in order.")
    strategy: StrategyChoice
    minimum_stations: Annotated[int, Field(ge=1)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    issued: Moment
    expires: Moment

    @model_validator(mode="after")
    def _consistent(self) -> "RunOrder":
        if self.expires <= self.issued:
            raise ValueError("expires must come after issued")
        if len(set(self.stations)) != len(self.stations):
            raise ValueError("names a station twice")
        if self.minimum_stations > len(self.stations):
            raise ValueError("asks for more stations than it names")
        if self.stages not in {("train",), ("train", "evaluate"), ("evaluate",), ("analyse",)}:
            raise ValueError("stages must be [train], [train, evaluate], [evaluate] or [analyse]")
        if "analyse" not in self.stages and self.initial_weights is None:
            raise ValueError("training and evaluation start from initial_weights")
        return self


def unverified_order(envelope: bytes) -> RunOrder:
    """Return what an envelope says its order is, with no signature checked: to find out whose to ask for, or to show it.

    Raises:
        TrustError: it is no envelope of an order.
        DocumentError: its payload is no order.
    """
    return load_json(RunOrder, unsafe_payload(envelope, PAYLOAD_TYPE), what="run order")
