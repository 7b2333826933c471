"""A grid in memory for the exchange: stations that are silent, slow, away or wrong, and a SuperLink that drops."""

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from orchestrator.federation.tasks import SuperLinkDownError
from policies.wire.instructions import Instruction, StationReply, decode_instruction, encode

Answer = StationReply | bytes | Error | None


@dataclass
class GridSimulator(Grid):
    """Each station answers by a function of the instruction; None is silence."""

    stations: dict[int, Callable[[Instruction], Answer]]
    online: set[int] = field(default_factory=set)
    asked: list[tuple[int, Instruction]] = field(default_factory=list)
    down_for: int = 0
    delays: dict[int, float] = field(default_factory=dict)
    """Seconds that a station's answers to what it computes take."""
    silent: dict[int, list[Message]] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _replies: dict[str, Message] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._may_be_down()
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._may_be_down()
        now = time.monotonic()
        ready = [key for key in message_ids if key in self._replies and self._due.get(key, 0.0) <= now]
        return [self._replies.pop(key) for key in ready]

    def get_node_ids(self) -> Iterable[int]:
        return self.online

    def _push(self, message: Message) -> str:
        message_id = f"m{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = message_id
        node = message.metadata.dst_node_id
        instruction = decode_instruction(message.content.config_records["pht"]["body"])
        self.asked.append((node, instruction))
        if node in self.delays and instruction.round:
            self._due[message_id] = time.monotonic() + self.delays[node]
        self.reply(message, self.stations[node])
        return message_id

    def reply(self, message: Message, station: Callable[[Instruction], Answer]) -> None:
        """Keep what a station answers to a message until it is pulled."""
        message_id = message.metadata.message_id
        answer = station(decode_instruction(message.content.config_records["pht"]["body"]))
        if isinstance(answer, Error):
            self._replies[message_id] = Message(answer, reply_to=message)
        elif answer is None:
            self.silent.setdefault(message.metadata.dst_node_id, []).append(message)
        else:
            body = answer if isinstance(answer, bytes) else encode(answer)
            self._replies[message_id] = Message(
                RecordDict({"pht": ConfigRecord({"body": body})}), reply_to=message
            )

    def _may_be_down(self) -> None:
        if self.down_for > 0:
            self.down_for -= 1
            raise SuperLinkDownError("down")

    def set_run(self, run: Run) -> None:
        """Not used."""

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise LookupError
