"""What an accepted order is and how far it is: the documents of a run's folder."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from policies.documents import Digest, Moment, Name, StrictModel
from policies.manifest import TrainManifest
from policies.order import RunOrder
from policies.policy import ReleaseRules

Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600, allow_inf_nan=False)]


class Timing(StrictModel):
    """How long the rounds wait, in seconds."""

    prepare_s: Seconds = Field(
        default=24 * 3600.0, description="For enough stations to accept; operators may have to."
    )
    prepare_grace_s: Seconds = Field(default=60.0, description="For the rest, once enough have accepted.")
    answer_s: Seconds | None = Field(
        default=None,
        description="For one answer; where not given, the manifest's message timeout, what the policy adds to it (the scoring of an "
        "update, its quantum) and two minutes.",
    )
    straggler_s: Seconds = Field(
        default=120.0,
        description="For the rest of a round, once enough have answered; at least as long as they took.",
    )
    review_s: Seconds | None = Field(
        default=None,
        description="For a station where a person looks at what is to leave; the policy's review_hours and ten minutes where "
        "not given. At each stage where the policy asks for that look, once in a run where only the hospital does.",
    )


class AcceptedOrder(StrictModel):
    """A run order whose signatures, policy and stations the orchestrator has checked."""

    order_digest: Digest = Field(description="Of the envelope's payload: the order's own bytes.")
    envelope: Annotated[str, Field(max_length=256 * 1024)] = Field(
        description="The signed order as DSSE, JSON text."
    )
    order: RunOrder
    manifest: TrainManifest
    release: ReleaseRules = Field(
        description="The policy's: which tensors a release holds, and how precisely."
    )
    nodes: dict[Name, Annotated[int, Field(ge=1, lt=2**64)]] = Field(
        description="Flower's node id of each station."
    )
    timing: Timing = Field(default_factory=Timing)
    requester: Annotated[str, Field(max_length=200)] = Field(
        default="", description="Whose order it is, so that nobody's many keep another's one waiting."
    )


class RunState(StrEnum):
    """How far an order is."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens without `resume`."""
        return self in {RunState.FINISHED, RunState.FAILED, RunState.STOPPED}


class RunProgress(StrictModel):
    """What an order's page shows."""

    state: RunState = RunState.QUEUED
    round: Annotated[int, Field(ge=0)] = 0
    rounds: Annotated[int, Field(ge=0)] = 0
    stage: Literal["", "prepare", "train", "evaluate", "analyse", "finish"] = ""
    accepted: tuple[str, ...] = ()
    missing: dict[str, str] = Field(
        default_factory=dict, description="Station to code: why it does not take part."
    )
    correlation: dict[str, str] = Field(
        default_factory=dict,
        description="Station to what it calls its run: its operator finds by that why it failed there.",
    )
    reviewing: dict[str, Moment] = Field(
        default_factory=dict,
        description="Stations where a person looks at what is to leave, to when they are waited for.",
    )
    looked_at: Moment | None = Field(
        default=None, description="Since when the first of those people looks, in the stage under way."
    )
    code: str = Field(default="", description="Why it failed: a word of a closed list.")
    flower_run: Annotated[int, Field(ge=0, lt=2**64)] = 0
    flower_runs: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many Flower runs carried the order."
    )
    restarts: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How often its ServerApp was started again."
    )
    weights: Digest | None = None
    excluded: dict[str, str] = Field(
        default_factory=dict,
        description="Stations that sent what no station of ours sends, to its code: out of the run for good.",
    )
    missing_since: dict[str, Moment] = Field(
        default_factory=dict, description="Since when each missing station is missing for that reason."
    )
    waiting: str = Field(
        default="",
        description="Why nothing goes on at the moment: a word of a closed list; empty where it does.",
    )
    position: Annotated[int, Field(ge=0)] = Field(
        default=0, description="In the queue, from 1; 0 where it is not queued."
    )
    full: tuple[str, ...] = Field(
        default=(), description="Stations that carry as many runs as they are asked to at once."
    )
    since: Moment | None = Field(default=None, description="When it came into its state.")
    carried: Moment | None = Field(
        default=None, description="When the process that carries it, or keeps the queue, last said so."
    )
