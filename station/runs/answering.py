"""What the station's instruction handler asks of whoever answers the messages of a prepared run."""

from typing import Protocol

from policies.wire.instructions import Instruction, StationReply
from station.runs.prepared import Prepared
from station.runs.repository import Run


class Rounds(Protocol):
    """Answers one message of a prepared run."""

    def answer(
        self, instruction: Instruction, arrays: bytes | None, run: Run, prepared: Prepared
    ) -> tuple[StationReply, bytes | None]:
        """Give the message to the train and return the reply that may leave."""

    def recorded(self, instruction: Instruction) -> tuple[StationReply, bytes | None] | None:
        """Return the recorded release of this (order, round, kind), pushed again where that was lost."""

    def under_review(self, instruction: Instruction, run: Run) -> tuple[StationReply, bytes | None] | None:
        """Return what is answered while and after a person looks at what the train returned, or None."""

    def waits_for_a_person(self, order_digest: str) -> bool:
        """Whether something that this order's train returned waits for a person."""
