"""What is known of one station while a question waits, and of a message whose question is over."""

from dataclasses import dataclass

from orchestrator.federation.answers import LATE, Outcome
from policies.wire.instructions import OLDEST_VERSION, Instruction


@dataclass(slots=True)
class AskedStation:
    """What is known of one station while a question waits.

    Attributes:
        until: when it is not waited for any more.
        under_review: a person there looks at what is to leave.
        review_until: until when that is no straggling.
        asked_at: first; None before.
        taken_s: by its answer, from when it was first asked; None without one of use.
        held: by something that is not its speed: a person, quiet hours, its engine.
        version: of the protocol, in which it is asked: an older one where it said so.
    """

    node_id: int
    ask_at: float
    silence_s: float
    until: float
    under_review: bool = False
    review_until: float = 0.0
    asked_at: float | None = None
    taken_s: float | None = None
    held: bool = False
    version: int = OLDEST_VERSION
    review_asked: int = 0
    attempt: int = 0
    failures: int = 0
    backoff_s: float = 1.0
    offline: bool = False
    last_code: str = LATE
    correlation_id: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A message whose question is over: its answer is late, if it comes.

    Attributes:
        question: as it was asked.
        station: whom.
        asked_at: first.
        until: Flower drops the answer then.
        held: by something that is not the station's speed.
    """

    question: Instruction
    station: str
    asked_at: float
    until: float
    held: bool
