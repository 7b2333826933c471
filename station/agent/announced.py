"""A connection whose every call is covered by the egress ledger before it is made; replies have entries of their own."""

from station.agent.interface import Connection
from station.agent.messages import Answer, IncomingMessage
from station.egress.records.calls import Call, CallLedger


class AnnouncedConnection:
    """A `Connection` that announces its calls.

    Args:
        connection: makes the calls.
        calls: where they are announced.
    """

    def __init__(self, connection: Connection, calls: CallLedger) -> None:
        self._connection, self._calls = connection, calls

    @property
    def url(self) -> str:
        """The orchestrator's address."""
        return self._connection.url

    @property
    def node_id(self) -> int | None:
        """Flower's id of this node, once known."""
        return self._connection.node_id

    def resume(self, node_id: int) -> None:
        """Take up a remembered node id; calls nobody."""
        self._connection.resume(node_id)

    def activate(self) -> int:
        """Ask for this node's id."""
        self._calls.announce(Call.ACTIVATE)
        return self._connection.activate()

    def heartbeat(self) -> None:
        """Say that this node is there."""
        self._calls.announce(Call.HEARTBEAT)
        self._connection.heartbeat()

    def poll(self) -> list[IncomingMessage]:
        """Take what is there."""
        self._calls.announce(Call.POLL)
        return self._connection.poll()

    def confirm(self, message: IncomingMessage) -> None:
        """Say that a message is stored here."""
        self._calls.announce(Call.CONFIRM)
        self._connection.confirm(message)

    def reply(self, answer: Answer) -> None:
        """Push an answer, which is in the ledger already."""
        self._connection.reply(answer)

    def run_is_over(self, run_id: int) -> bool:
        """Ask whether a run still takes part."""
        self._calls.announce(Call.RUN_STATUS)
        return self._connection.run_is_over(run_id)

    def interrupt(self) -> None:
        """Stop retrying."""
        self._connection.interrupt()

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()
