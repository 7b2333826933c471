"""What a question to stations comes to, and how long it waits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.federation.speeds import NoSpeeds, Speeds
from policies.wire.instructions import StationReply

LATE = "LATE"
LOST = "LOST"
"""Flower took the node for offline."""

REVIEW_PACE_S = 5.0


class StoppedError(Exception):
    """An operator asked to stop, or the task is not ours any more."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A station's answer, as it came; `replies` judges it."""

    reply: StationReply
    arrays: bytes | None


@dataclass(frozen=True, slots=True)
class Missing:
    """No answer of use.

    Attributes:
        code: a refusal code, `LATE`, `LOST`, or why the reply was not acceptable.
        correlation_id: what the station calls its run, to ask its operator about; empty where it said none.
        offence: the reply broke the contract: no station of ours sends such a one.
        again: its bytes are not here, or not as they were: asked again, the station sends them again.
    """

    code: str
    correlation_id: str = ""
    offence: bool = False
    again: bool = False


Outcome = Answered | Missing


@dataclass(frozen=True, slots=True)
class Looking:
    """A judgement that takes long.

    Attributes:
        work: looks, beside the thread that asks; it writes nothing.
        settle: says, in the thread that asks, what follows from what `work` returned.
    """

    work: Callable[[], Any]
    settle: Callable[[Any], Outcome]


Judge = Callable[[str, Answered], Outcome | Looking]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a question waits, in seconds.

    Attributes:
        deadline_s: for each station.
        enough: how many answers make waiting for the rest optional.
        grace_s: how long the rest may take after that, or as long as it took until then if that is more.
        quantum_s: at multiples of which stations answer; the rest have one more, since an answer comes when a quantum is over.
        pending_s: before a station that answered "pending" is asked again; slowly grows to 15 s.
        silence_s: before a silent station is asked again; doubles.
        tries: how many answers "failed" end the question at a station.
        review_pace_s: before a station where a person looks is asked again; slowly grows to a minute.
        speeds: how long each station took before; one that needs longer than the others is waited for by that.
        begun: the stations that accepted the order before.
    """

    deadline_s: float
    enough: int
    grace_s: float
    pending_s: float = 0.8
    silence_s: float = 30.0
    tries: int = 3
    review_pace_s: float = REVIEW_PACE_S
    quantum_s: float = 0.0
    speeds: Speeds = field(default_factory=NoSpeeds)
    begun: frozenset[str] = frozenset()
