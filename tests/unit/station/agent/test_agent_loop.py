"""The agent's loop against a SuperLink that loses, repeats, goes away and lies."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from link_simulator import LinkSimulator, OverLink

from policies.errors import DataError, StorageError
from policies.wire.instructions import Blob, Instruction, Kind, StationReply, Status, encode
from station.agent import Agent, Pace
from station.agent.spool import Spool

ORDER = "sha256:" + "1" * 64
PACE = Pace(fast_s=0.002, slow_s=0.02, idle_s=0.02, heartbeat_s=0.02, check_s=0.02, grace_s=0.2)


class Station:
    """Answers everything at once unless told otherwise."""

    def __init__(self) -> None:
        self.asked: list[Instruction] = []
        self.over: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.fails_with: Exception | None = None
        self.arrays: bytes | None = None
        self.ledger_full = False
        self.faults = 0

    def handle(self, instruction: Instruction, arrays: bytes | None) -> tuple[StationReply, bytes | None]:
        self.asked.append(instruction)
        if instruction.order_digest == ORDER:
            self.hold.wait(120)
        if self.fails_with is not None:
            raise self.fails_with
        status = {Kind.PREPARE: Status.ACCEPTED, Kind.FINISH: Status.FINISHED}.get(
            instruction.kind, Status.RELEASED
        )
        reply = StationReply(
            order_digest=instruction.order_digest,
            kind=instruction.kind,
            round=instruction.round,
            attempt=instruction.attempt,
            status=status,
        )
        return reply, self.arrays

    def fault(self, instruction: Instruction) -> StationReply:
        self.faults += 1
        if self.ledger_full:
            raise StorageError("the disk is full")
        return StationReply(
            order_digest=instruction.order_digest,
            kind=instruction.kind,
            round=instruction.round,
            attempt=instruction.attempt,
            status=Status.FAILED,
            code="STATION_FAULT",
        )

    def run_over(self, order_digest: str) -> None:
        self.over.append(order_digest)


def _train(round_: int = 1, order: str = ORDER) -> Instruction:
    return Instruction(
        kind=Kind.TRAIN, order_digest=order, round=round_, weights=Blob(digest=ORDER, size=1), deadline_s=60
    )


def _until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        pause.wait(0.005)


def _left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "messages").iterdir() if not path.name.startswith(".")]


@pytest.fixture
def link() -> LinkSimulator:
    return LinkSimulator()


@pytest.fixture
def station() -> Station:
    return Station()


@pytest.fixture
def start(tmp_path: Path, link: LinkSimulator, station: Station) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def begin(connection: LinkSimulator = link) -> Agent:
        agent = Agent(connection, station, tmp_path, PACE)
        agents.append(agent)
        agent.start()
        return agent

    yield begin
    station.hold.set()
    for agent in agents:
        agent.stop(5.0)


def test_an_instruction_is_answered_and_nothing_is_left(
    link: LinkSimulator, start: Callable[..., Agent], tmp_path: Path
) -> None:
    message = link.ask(_train())
    agent = start()
    _until(lambda: len(link.answers) == 1)
    assert link.replies()[0].status is Status.RELEASED
    _until(lambda: link.confirmed == [message.message_id])
    _until(lambda: _left(tmp_path) == [])
    assert agent.active_orders == {ORDER}


def test_a_lost_reply_is_sent_again_byte_for_byte(link: LinkSimulator, start: Callable[..., Agent]) -> None:
    link.reject_replies = 2
    link.ask(_train())
    start()
    _until(lambda: len(link.answers) == 1)


def test_an_answer_that_was_not_delivered_is_delivered_by_the_next_life(
    link: LinkSimulator, station: Station, start: Callable[..., Agent]
) -> None:
    link.reject_replies = 10**6
    link.ask(_train())
    agent = start()
    _until(lambda: len(station.asked) == 1 and link.reject_replies < 10**6)
    agent.stop(5.0)
    link.reject_replies = 0
    start()
    _until(lambda: len(link.answers) == 1)
    assert len(station.asked) == 1


def test_a_message_that_was_not_answered_is_handled_by_the_next_life(
    link: LinkSimulator, station: Station, start: Callable[..., Agent], tmp_path: Path
) -> None:
    station.hold.clear()
    link.ask(_train())
    agent = start()
    _until(lambda: len(station.asked) == 1)
    # As a crash would: the thread in the handler is abandoned, its answer never stored.
    agent.stop(0.1)
    again = Station()
    second = Agent(link, again, tmp_path, PACE)
    second.start()
    _until(lambda: len(link.answers) == 1)
    second.stop(5.0)
    assert [entry.round for entry in again.asked] == [1]


def test_runs_do_not_wait_for_each_other(
    link: LinkSimulator, station: Station, start: Callable[..., Agent]
) -> None:
    station.hold.clear()
    other = "sha256:" + "2" * 64
    link.ask(_train(), run_id=1)
    link.ask(_train(order=other), run_id=2)
    start()
    _until(lambda: len(link.answers) == 1)
    assert link.replies()[0].order_digest == other
    station.hold.set()
    _until(lambda: len(link.answers) == 2)


@pytest.mark.parametrize(
    "body", [None, b"", b"\xff", b"{}", b'{"kind":"train"}', b"[" * 5000, b"PK\x03\x04 a bundle"]
)
def test_a_message_that_is_not_ours_is_dropped_and_the_loop_goes_on(
    link: LinkSimulator, station: Station, start: Callable[..., Agent], body: bytes | None
) -> None:
    bad = link.send(body)
    link.ask(_train())
    start()
    _until(lambda: len(link.answers) == 1)
    _until(lambda: bad.message_id in link.confirmed)
    assert len(station.asked) == 1


def test_arrays_that_are_too_large_are_not_handed_on(
    link: LinkSimulator, station: Station, start: Callable[..., Agent]
) -> None:
    from policies.wire.instructions import encode

    link.send(encode(_train()), arrays=b"x" * (64 * 1024 + 1))
    link.ask(_train(2))
    start()
    _until(lambda: len(link.answers) == 1)
    assert [entry.round for entry in station.asked] == [2]


@pytest.mark.parametrize(
    "fault", [DataError("a fault of ours"), RuntimeError("text of a train"), KeyError("x")]
)
def test_a_fault_of_the_station_is_answered_without_its_text(
    link: LinkSimulator, station: Station, start: Callable[..., Agent], fault: Exception
) -> None:
    station.fails_with = fault
    link.ask(_train())
    start()
    _until(lambda: len(link.answers) == 1)
    reply = link.replies()[0]
    assert (reply.status, reply.code) == (Status.FAILED, "STATION_FAULT")
    assert b"text of a train" not in link.answers[0].body
    station.fails_with = None
    link.ask(_train(2))
    _until(lambda: len(link.answers) == 2)


def test_a_fault_that_cannot_be_entered_in_the_ledger_is_not_told(
    link: LinkSimulator, station: Station, start: Callable[..., Agent], tmp_path: Path
) -> None:
    station.fails_with, station.ledger_full = RuntimeError("x"), True
    link.ask(_train())
    start()
    _until(lambda: station.faults == 1)
    station.fails_with = None
    link.ask(_train(2))
    _until(lambda: len(link.answers) == 1)
    assert link.replies()[0].round == 2
    assert len(_left(tmp_path)) == 1, "kept for the next life"


def test_arrays_of_the_station_above_the_inline_limit_do_not_leave(
    link: LinkSimulator, station: Station, start: Callable[..., Agent]
) -> None:
    station.arrays = b"x" * (64 * 1024 + 1)
    link.ask(_train())
    start()
    _until(lambda: len(link.answers) == 1)
    assert link.replies()[0].code == "STATION_FAULT"
    assert link.answers[0].arrays is None


def test_the_end_of_a_run_is_told_once_and_only_when_no_other_run_has_the_order(
    link: LinkSimulator, station: Station, start: Callable[..., Agent]
) -> None:
    link.ask(_train(1), run_id=1)
    start()
    _until(lambda: len(link.answers) == 1)
    link.ask(_train(2), run_id=2)
    _until(lambda: len(link.answers) == 2)
    link.over.add(1)
    beats = link.heartbeats
    _until(lambda: link.heartbeats > beats + 25)
    assert station.over == []
    link.over.add(2)
    _until(lambda: station.over == [ORDER])


def test_the_end_of_a_run_is_noticed_by_the_next_life(
    link: LinkSimulator, station: Station, start: Callable[..., Agent]
) -> None:
    link.ask(_train())
    agent = start()
    _until(lambda: len(link.answers) == 1)
    agent.stop(5.0)
    link.over.add(1)
    start()
    _until(lambda: station.over == [ORDER])


def test_the_node_id_is_remembered(link: LinkSimulator, start: Callable[..., Agent]) -> None:
    agent = start()
    _until(lambda: agent.last_contact is not None)
    agent.stop(5.0)
    start()
    _until(lambda: link.heartbeats > 0)
    assert link.activations == 1


def test_a_node_id_that_does_not_hold_any_more_is_asked_for_anew(
    link: LinkSimulator, start: Callable[..., Agent]
) -> None:
    agent = start()
    _until(lambda: agent.last_contact is not None)
    agent.stop(5.0)
    link.known_node, link.online = 43, False
    link.ask(_train())
    start()
    _until(lambda: len(link.answers) == 1)
    assert link.node_id == 43


def test_an_orchestrator_that_is_away_is_waited_for(link: LinkSimulator, start: Callable[..., Agent]) -> None:
    link.away = True
    link.ask(_train())
    start()
    threading.Event().wait(0.1)
    link.away = False
    _until(lambda: len(link.answers) == 1)


def test_an_answer_nobody_takes_any_more_is_forgotten(start: Callable[..., Agent], tmp_path: Path) -> None:
    link = OverLink()
    link.ask(_train())
    start(link)
    _until(lambda: len(link.confirmed) == 1 and _left(tmp_path) == [])


def test_an_expired_message_of_an_earlier_life_is_forgotten(
    link: LinkSimulator, station: Station, start: Callable[..., Agent], tmp_path: Path
) -> None:
    from policies.wire.instructions import encode

    old = link.send(encode(_train()), life_s=-1.0)
    link.poll()
    Spool(tmp_path).keep(old)
    link.ask(_train(2))
    start()
    _until(lambda: len(link.answers) == 1)
    assert [entry.round for entry in station.asked] == [2]
    assert _left(tmp_path) == []


def test_repeats_that_nobody_waits_for_any_more_are_not_asked_of_the_station(
    link: LinkSimulator, station: Station, start: Callable[..., Agent], tmp_path: Path
) -> None:
    """A message may take hours: what was sent again meanwhile waits behind it, and its time passes there."""
    station.hold.clear()
    link.ask(_train())
    start()
    _until(lambda: len(station.asked) == 1)
    link.send(encode(_train()), life_s=-1.0)
    link.ask(_train(2))
    station.hold.set()
    _until(lambda: len(link.answers) == 2)
    assert [instruction.round for instruction in station.asked] == [1, 2]
    _until(lambda: _left(tmp_path) == [])
