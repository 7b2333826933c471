"""The heads of what is said on a train's control socket."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from policies.documents import StrictModel
from station.sandbox.spec import TrainRequest


class Hello(StrictModel):
    """The first message of a container."""

    type: Literal["hello"]
    protocol: Literal[1]
    interface: Literal["flower", "command", "map"]


class ReplyHead(StrictModel):
    """The head of an answer."""

    type: Literal["reply"]
    id: int
    metrics: dict[str, JsonValue]
    rows: dict[str, JsonValue]
    scores: list[JsonValue] = Field(default_factory=list)
    error: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None


def head_of(request: TrainRequest, number: int) -> dict[str, JsonValue]:
    """Return the head of a request."""
    head: dict[str, JsonValue] = {
        "type": request.kind,
        "id": number,
        "round": request.round,
        "config": dict(request.config),
    }
    return head if request.case is None else head | {"case": request.case}


def problem_with_scores(request: TrainRequest, head: ReplyHead, has_arrays: bool) -> str:
    """Return what is wrong with an answer's scores beside what was asked; empty where nothing is."""
    if head.scores and (head.error or request.kind != "score"):
        return "it scored what nobody asked it to score"
    if request.kind == "score" and (head.metrics or head.rows or has_arrays):
        return "its scores came with results"
    if request.kind == "predict" and head.rows:
        return "its predictions came with rows"
    return ""
