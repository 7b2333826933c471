"""A SuperLink in memory for the agent's loop: delivers once, may lose replies, may be away, ends runs."""

import hashlib
import threading
import time

from policies.errors import NetworkError
from policies.wire.instructions import Instruction, StationReply, decode_reply, encode
from station.agent.messages import Answer, IncomingMessage, NotAdmittedError, RunOverError, StillOnlineError


class LinkSimulator:
    """Implements `station.agent.interface.Connection`."""

    def __init__(self) -> None:
        self.url = "https://orchestrator.example"
        self.node_id: int | None = None
        self.known_node = 42
        self.away = False
        self.online = False
        self.reject_replies = 0
        self.over: set[int] = set()
        self.confirmed: list[str] = []
        self.answers: list[Answer] = []
        self.heartbeats = 0
        self.activations = 0
        self._waiting: list[IncomingMessage] = []
        self._lock = threading.Lock()

    def send(
        self, body: bytes | None, *, run_id: int = 1, arrays: bytes | None = None, life_s: float = 60.0
    ) -> IncomingMessage:
        """Queue a message for the station."""
        with self._lock:
            number = len(self._waiting) + len(self.confirmed) + len(self.answers) + int(time.monotonic_ns())
            message_id = hashlib.sha256(str(number).encode()).hexdigest()
            message = IncomingMessage(
                run_id, message_id, body, arrays, message_id.encode(), time.time() + life_s
            )
            self._waiting.append(message)
            return message

    def ask(self, instruction: Instruction, *, run_id: int = 1) -> IncomingMessage:
        """Queue an instruction."""
        return self.send(encode(instruction), run_id=run_id)

    def replies(self) -> list[StationReply]:
        """What the station answered, in order of arrival."""
        with self._lock:
            return [decode_reply(answer.body) for answer in self.answers]

    # -- the connection --------------------------------------------------------------------------------------

    def resume(self, node_id: int) -> None:
        self.node_id = node_id

    def activate(self) -> int:
        self._check()
        self.activations += 1
        if self.online:
            raise StillOnlineError("still online")
        self.node_id, self.online = self.known_node, True
        return self.known_node

    def heartbeat(self) -> None:
        self._check()
        self.heartbeats += 1
        if self.node_id != self.known_node:
            raise NotAdmittedError("unknown node")
        self.online = True

    def poll(self) -> list[IncomingMessage]:
        self._check()
        with self._lock:
            return [self._waiting.pop(0)] if self._waiting else []

    def confirm(self, message: IncomingMessage) -> None:
        self._check()
        with self._lock:
            self.confirmed.append(message.message_id)

    def reply(self, answer: Answer) -> None:
        self._check()
        with self._lock:
            if self.reject_replies > 0:
                self.reject_replies -= 1
                raise NetworkError("lost")
            self.answers.append(answer)

    def run_is_over(self, run_id: int) -> bool:
        self._check()
        return run_id in self.over

    def interrupt(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open."""

    def _check(self) -> None:
        if self.away:
            raise NetworkError("away")


class OverLink(LinkSimulator):
    """Refuses every answer: the run ended meanwhile."""

    def reply(self, answer: Answer) -> None:
        raise RunOverError("over")
