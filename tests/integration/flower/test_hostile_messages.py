"""What a hostile orchestrator can put into a Flower message: the agent drops it, loses nothing, and goes on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flower_federation import NAMES, PlainStation, federation, wait_until
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from orchestrator.federation.flower import Control, OrderGrid
from policies.wire.instructions import Instruction, Kind, decode_reply, encode

pytestmark = pytest.mark.superlink

ORDER = "sha256:" + "4" * 64


class Hostile:
    """A run started straight at the SuperLink, and one station that listens."""

    def __init__(self, grid: OrderGrid, node_id: int, station: PlainStation) -> None:
        self.grid, self.node_id, self.station = grid, node_id, station

    def send(self, content: RecordDict, message_type: str = "train.pht") -> str:
        message = Message(content, dst_node_id=self.node_id, message_type=message_type, ttl=60.0)
        return next(iter(self.grid.push_messages([message])))

    def ask(self, round_: int) -> str:
        instruction = Instruction(kind=Kind.EVALUATE, order_digest=ORDER, round=round_, deadline_s=60)
        return self.send(RecordDict({"pht": ConfigRecord({"body": encode(instruction)})}))

    def answer(self, message_id: str) -> Message:
        found: list[Message] = []
        wait_until(lambda: bool(found.extend(self.grid.pull_messages([message_id])) or found), "an answer")
        return found[0]


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    with federation(tmp_path) as running:
        running.worker.stop()
        control: Control = running.superlink.control()
        control.start_run()
        task = control.claim_task()
        assert task is not None
        grid = OrderGrid(running.superlink.address, task.token)
        grid.start_task()
        station = PlainStation(1, 10)
        running.join(NAMES[0], station)
        node_id = running.nodes[NAMES[0]]
        wait_until(lambda: node_id in grid.get_node_ids(), "the station")
        yield Hostile(grid, node_id, station)
        grid.close()
        control.close()


def _records() -> dict[str, RecordDict]:
    arrays = ArrayRecord({"w": Array(np.zeros(4, dtype=np.float32))})
    return {
        "nothing": RecordDict(),
        "arrays": RecordDict({"pht": arrays}),
        "metrics": RecordDict({"pht": MetricRecord({"body": 1.0})}),
        "another name": RecordDict({"config": ConfigRecord({"body": b"{}"})}),
        "no body": RecordDict({"pht": ConfigRecord({"a": 1})}),
        "text": RecordDict({"pht": ConfigRecord({"body": "{}"})}),
        "not json": RecordDict({"pht": ConfigRecord({"body": b"\x80\x04."})}),
        "too many records": RecordDict(
            {"pht": ConfigRecord({"body": b"{}"}), "more": ConfigRecord({"x": 1})}
        ),
        "large": RecordDict({"pht": ConfigRecord({"body": b" " * (1024 * 1024)})}),
        "larger than a response": RecordDict({"pht": ConfigRecord({"body": b" " * (3 * 1024 * 1024)})}),
    }


def test_what_is_not_ours_is_dropped_and_the_next_instruction_is_answered(hostile: Hostile) -> None:
    for content in _records().values():
        hostile.send(content)
    for message_type in ("train", "evaluate", "query", "train.other"):
        hostile.send(RecordDict({"pht": ConfigRecord({"body": b"{}"})}), message_type)
    reply = hostile.answer(hostile.ask(1))
    assert decode_reply(reply.content.config_records["pht"]["body"]).round == 1
    assert hostile.station.seen == [("evaluate", 1, 1)]


def test_a_message_whose_objects_never_come_holds_up_no_other(hostile: Hostile) -> None:
    whole = hostile.grid._push_object
    hostile.grid._push_object = lambda *_: None  # type: ignore[method-assign]
    hostile.ask(1)
    hostile.grid._push_object = whole  # type: ignore[method-assign]
    hostile.answer(hostile.ask(2))
    assert hostile.station.seen == [("evaluate", 2, 1)]


def test_an_answer_says_nothing_but_its_record(hostile: Hostile) -> None:
    reply = hostile.answer(hostile.ask(1))
    assert list(reply.content) == ["pht"]
    assert set(reply.content.config_records["pht"]) == {"body"}
    assert reply.metadata.src_node_id == hostile.node_id
