"""What the agent's loop needs of others: a connection, the station, and how often to ask."""

from dataclasses import dataclass
from typing import Protocol

from policies.wire.instructions import Instruction, StationReply
from station.agent.messages import Answer, IncomingMessage


class Connection(Protocol):
    """The Fleet API as the loop uses it; `fleet.FleetConnection` says what each call means and raises."""

    @property
    def url(self) -> str:
        """The orchestrator's address."""

    @property
    def node_id(self) -> int | None:
        """Flower's id of this node, once known."""

    def resume(self, node_id: int) -> None:
        """Take up a remembered node id."""

    def activate(self) -> int:
        """Ask for this node's id."""

    def heartbeat(self) -> None:
        """Say that this node is there."""

    def poll(self) -> list[IncomingMessage]:
        """Take what is there."""

    def confirm(self, message: IncomingMessage) -> None:
        """Say that a message is stored here."""

    def reply(self, answer: Answer) -> None:
        """Push an answer."""

    def run_is_over(self, run_id: int) -> bool:
        """Ask whether a run still takes part."""

    def interrupt(self) -> None:
        """Stop retrying."""

    def close(self) -> None:
        """Drop the connection."""


class InstructionHandler(Protocol):
    """What the agent needs of the station."""

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        """Answer one instruction; asked twice for the same (order, round, kind), give the recorded release again.

        Called from the run's own thread; may take as long as training takes.
        """

    def fault(self, instruction: Instruction) -> StationReply:
        """Answer that the station failed; entered in the egress ledger like every other answer.

        Raises:
            PhtError: it cannot be entered, so nothing may be answered.
        """

    def run_over(self, order_digest: str) -> None:
        """No Flower run carries this order any more: stop what is warm for it. Must not take long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the agent asks, in seconds.

    Attributes:
        fast_s: after something happened in a run; then slower by a fifth with every empty poll.
        slow_s: the slowest while a run is at work, and while every run is busy computing.
        idle_s: without any run, some time after the last.
        heartbeat_s: between heartbeats.
        check_s: between two questions whether a run is over.
        grace_s: how long after a run's end another run may take its order up before the warm container stops.
    """

    fast_s: float = 0.03
    slow_s: float = 0.5
    idle_s: float = 2.0
    heartbeat_s: float = 5.0
    check_s: float = 10.0
    grace_s: float = 60.0
