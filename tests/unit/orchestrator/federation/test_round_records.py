"""What a round says of who took part: of how many, why not, since when, how long each was given; and who is waited for how long."""

import time
from collections.abc import Callable
from pathlib import Path

from federation_samples import NAMES
from federation_world import NODES, ORDER, World
from flwr.app import Error
from grid_simulator import Answer
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.federation.orders import RunState
from orchestrator.federation.speeds import KEPT, SpeedBook, allowed_s
from policies.wire.instructions import Instruction, Kind, StationReply, Status

IMAGE = "sha256:" + "a" * 64


def _says(code: str, status: Status = Status.REFUSED, **where: object) -> Callable[[Instruction], Answer]:
    def answer(instruction: Instruction) -> Answer:
        return StationReply(
            order_digest=ORDER, kind=instruction.kind, round=instruction.round, status=status, code=code,
            correlation_id="c0ffee",
        )  # fmt: skip

    return answer


def test_a_round_says_two_of_three_and_why_one_was_missing(world: World) -> None:
    folder = world.accept()

    def withholds(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.TRAIN:
            return _says("RELEASE_TOO_FEW_PATIENTS", Status.WITHHELD)(instruction)
        return world.answer("dommel")(instruction)

    world.behaviour["dommel"] = withholds
    world.rounds(folder).run()
    first, second = folder.read_rounds()
    assert (len(first["took_part"]), first["of"], first["quorum"]) == (2, 3, 2)
    absent = first["absent"]["train"]["dommel"]
    assert (absent["code"], absent["correlation_id"]) == ("RELEASE_TOO_FEW_PATIENTS", "c0ffee")
    assert absent["since"] is not None
    assert second["absent"]["train"]["dommel"]["code"] == "RELEASE_TOO_FEW_PATIENTS"
    # It answered the evaluation: it is missing where it was missing.
    assert first["absent"]["evaluate"] == {}
    assert set(first["deadlines"]["train"]) == set(NAMES)
    given_s, taken_s = (first["deadlines"]["train"]["amstel"][key] for key in ("given_s", "taken_s"))
    assert given_s > taken_s >= 0
    assert first["deadlines"]["train"]["dommel"]["taken_s"] is None


def test_who_left_for_good_is_neither_asked_nor_waited_for(world: World) -> None:
    folder = world.accept(rounds=3, straggler_s=60.0)

    def revoked(instruction: Instruction) -> Answer:
        if instruction.round == 1 and instruction.kind is Kind.EVALUATE:
            return _says("POLICY_REVOKED")(instruction)
        # From now on it would be silent: whoever waited for it would wait a minute.
        return world.answer("dommel")(instruction) if instruction.round < 2 else None

    world.behaviour["dommel"] = revoked
    started = time.monotonic()
    world.rounds(folder).run()
    assert time.monotonic() - started < 50
    assert world.asked("dommel") == ["prepare 0", "train 1", "evaluate 1"]
    second, third = folder.read_rounds()[1:]
    assert second["absent"]["train"]["dommel"]["code"] == "POLICY_REVOKED"
    assert second["absent"]["train"]["dommel"] == third["absent"]["evaluate"]["dommel"]
    assert folder.read_progress().missing == {"dommel": "POLICY_REVOKED"}


def test_who_is_lost_is_said_so_and_asked_again_when_it_is_back(world: World) -> None:
    folder = world.accept(rounds=3)

    def falls_away(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.TRAIN and instruction.round == 1:
            world.grid.online.discard(NODES["dommel"])
        return world.answer("dommel")(instruction) if NODES["dommel"] in world.grid.online else Error(5)

    def calls_it_back(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.EVALUATE and instruction.round == 2:
            world.grid.online.add(NODES["dommel"])
        return world.answer("amstel")(instruction)

    world.behaviour |= {"dommel": falls_away, "amstel": calls_it_back}
    world.rounds(folder).run()
    first, second, third = folder.read_rounds()
    assert (first["missing"], second["missing"]) == ({"dommel": "LOST"}, {"dommel": "LOST"})
    assert first["absent"]["train"]["dommel"]["since"] == second["absent"]["train"]["dommel"]["since"]
    assert (third["missing"], third["took_part"]) == ({}, list(NAMES))
    assert world.asked("dommel") == ["prepare 0", "train 1", "prepare 0", "train 3", "evaluate 3", "finish 0"]
    assert folder.read_progress().missing == {}


def test_who_accepts_late_takes_part_from_the_next_round(world: World) -> None:
    """Its acceptance comes when nobody waits for it any more, in the middle of a round."""
    folder = world.accept(rounds=3)
    acceptances = 0

    def hesitates(instruction: Instruction) -> Answer:
        nonlocal acceptances
        if instruction.kind is Kind.PREPARE:
            acceptances += 1
            return None
        return world.answer("dommel")(instruction)

    def lets_it_answer(instruction: Instruction) -> Answer:
        if instruction.kind is Kind.TRAIN and instruction.round == 1:
            world.answer_later(NODES["dommel"], world.answer("dommel"))
        return world.answer("amstel")(instruction)

    world.behaviour |= {"dommel": hesitates, "amstel": lets_it_answer}
    world.rounds(folder).run()
    rounds = folder.read_rounds()
    assert rounds[0]["missing"] == {"dommel": "LATE"}
    assert "dommel" in rounds[2]["took_part"]
    assert folder.read_progress().state is RunState.FINISHED


def test_an_honest_slow_station_is_late_once_and_then_has_its_own_time(world: World) -> None:
    """The others take no time, and once they have answered the rest have 0.2 s: less than it takes."""
    folder = world.accept(rounds=3, stages=["train"])

    def slow(instruction: Instruction) -> Answer:
        return None if instruction.round == 1 else world.answer("dommel")(instruction)

    def releases_it(instruction: Instruction) -> Answer:
        if instruction.round == 2 and NODES["dommel"] in world.grid.silent:
            world.answer_later(NODES["dommel"], world.answer("dommel"))
            world.grid.delays[NODES["dommel"]] = 0.5
        return world.answer("amstel")(instruction)

    world.behaviour |= {"dommel": slow, "amstel": releases_it}
    world.rounds(folder).run()
    first, second, third = folder.read_rounds()
    assert (first["missing"], first["took_part"]) == ({"dommel": "LATE"}, ["amstel", "berkel"])
    (late,) = second["late"]
    assert (late["station"], late["stage"], late["round"]) == ("dommel", "train", 1)
    # What came late is in no average, and was measured: since then it has the time that it takes.
    assert (second["took_part"], third["took_part"]) == (list(NAMES), list(NAMES))
    deadline = third["deadlines"]["train"]["dommel"]
    assert deadline["given_s"] >= deadline["taken_s"] >= 0.5
    # Another run of the same image knows it from the start.
    again = world.accept(number=8, rounds=1, stages=["train"])
    world.behaviour.clear()
    world.rounds(again).run()
    assert again.read_rounds()[0]["took_part"] == list(NAMES)


def test_a_silent_station_is_not_waited_for_longer_than_its_own_speed(world: World) -> None:
    book = SpeedBook(world.queue.runs, IMAGE)
    for _ in range(3):
        book.note("dommel", "train", 0.1)
    book.flush()
    folder = world.accept(rounds=1, stages=["train"])
    world.behaviour["dommel"] = lambda instruction: (
        None if instruction.kind is Kind.TRAIN else world.answer("dommel")(instruction)
    )
    world.rounds(folder).run()
    deadline = folder.read_rounds()[0]["deadlines"]["train"]["dommel"]
    assert deadline["taken_s"] is None
    assert 1.0 < deadline["given_s"] < 1.5


def test_speeds_are_kept_over_orders_that_write_at_once_and_damage_is_no_speed(tmp_path: Path) -> None:
    first, second = SpeedBook(tmp_path, IMAGE), SpeedBook(tmp_path, IMAGE)
    for number in range(KEPT):
        first.note("amstel", "train", 10.0 + number)
    second.note("amstel", "train", 90.0)
    second.note("berkel", "evaluate", 3.0)
    first.flush()
    second.flush()
    read = SpeedBook(tmp_path, IMAGE)
    assert read.allowed_s("amstel", "train") > 90.0
    assert read.allowed_s("berkel", "evaluate") == 4.5
    assert (read.allowed_s("berkel", "train"), read.allowed_s("vecht", "train")) == (0.0, 0.0)
    (path,) = (tmp_path / ".speeds").glob("*.json")
    for damaged in (b"", b"[]", b'{"amstel": 3}', b'{"amstel": {"train": ["x", null, -1, 1e400]}}'):
        path.write_bytes(damaged)
        assert SpeedBook(tmp_path, IMAGE).allowed_s("amstel", "train") == 0.0


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=KEPT))
def test_a_station_always_has_more_than_its_last_answer_took(samples: list[float]) -> None:
    assert allowed_s(samples) >= max(
        samples[-1] + 1.0, sorted(samples)[len(samples) // 2] if len(samples) % 2 else 0.0
    )


def test_one_odd_answer_does_not_move_a_stations_time_for_long() -> None:
    usual = [10.0, 11.0, 9.0, 10.0, 10.5]
    assert allowed_s([*usual, 400.0, *usual]) < 20.0
