"""Attack and accident: the station is killed at every step while a release is parked, released, withheld or timed out.

A child process does it and is killed with SIGKILL before or after each rename, link, removal and commit in turn. Whatever is left on
the disk: nothing is lost, nothing leaves twice, and nothing leaves but what was parked and released.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from review_kit import (
    HOURS,
    PENDING,
    Standstill,
    asked,
    digest,
    later,
    left,
    loss,
    nothing_left,
    park_one,
    parked_files,
    review,
    standing_still,
    waiting,
)
from sqlalchemy import event
from sqlalchemy.orm import Session
from station_kit import StationKit

from policies.refusals import Permitted
from policies.wire.instructions import Kind, Status
from station.audit import verify
from station.egress.records.ledger import verify_ledger
from station.egress.review.reviews import ReviewState

_FILES = frozenset({"os.rename", "os.link", "os.remove"})
_MOST = 60
Action = Callable[[StationKit], object]


def killed_at(kit: StationKit, step: int, action: Action) -> bool:
    """Do something in a process of its own that is killed at a step; whether it came to that step.

    No connection to the database crosses the fork: SQLite forbids it.
    """
    kit.close()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            kit.open()
            _arm(kit, step)
            action(kit)
            status = 0
        finally:
            os._exit(status)
    ended = _ended(child)
    assert ended in {-signal.SIGKILL, 0}, "the child failed before its step"
    killed = ended != 0
    kit.open()
    kit.again()
    return killed


def _ended(child: int) -> int:
    """How the child ended; a child that hangs ends the test, not the machine's patience."""
    deadline = time.monotonic() + 120
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        threading.Event().wait(0.005)


def _arm(kit: StationKit, step: int) -> None:
    """From now on, die at the step-th change of the disk, or between two."""
    left_over = [step]

    def count(*_: object) -> None:
        left_over[0] -= 1
        if left_over[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    # Of the writer only: what is read changes nothing.
    writer = kit.database._writer
    event.listen(writer, "commit", count)
    event.listen(Session, "after_commit", lambda session: count() if session.bind is writer else None)
    sys.addaudithook(lambda name, _: count() if name in _FILES else None)


@pytest.fixture(scope="module")
def standstill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standstill, bytes]]:
    """A station where the first answer of an order waits for two people."""
    with standing_still(tmp_path_factory.mktemp("killed"), people=2) as made:
        yield made


def at_every_step(standstill: Standstill, action: Action, look: Action) -> int:
    """Kill it at each step in turn and look at what is left; returns how many steps there are."""
    for step in range(1, _MOST):
        with standstill.going_on() as kit:
            killed = killed_at(kit, step, action)
            look(kit)
            assert isinstance(verify(kit.database), Permitted)
            assert isinstance(verify_ledger(kit.database), Permitted)
            if not killed:
                return step - 1
    raise AssertionError("it has no end")


def test_while_it_is_released(standstill: tuple[Standstill, bytes]) -> None:
    kept, envelope = standstill

    def both(kit: StationKit) -> None:
        kit.reviewing.release(1, "anna")
        kit.reviewing.release(1, "bert")

    def look(kit: StationKit) -> None:
        if review(kit).state is ReviewState.WAITING:
            # Not yet released: it is whole, every word that was taken stands, and the others are taken now.
            assert (left(kit), parked_files(kit)) == ([], ["1.safetensors"])
            assert asked(kit, envelope) == PENDING
            for name in ("anna", "bert"):
                if name not in review(kit).released_by:
                    kit.reviewing.release(1, name)
        reply, arrays = kit.message(envelope)
        assert (reply.status, loss(reply)) == (Status.RELEASED, 0.001)
        assert arrays is not None
        assert left(kit) == [(digest(envelope), 1)]
        assert parked_files(kit) == []
        assert kit.message(envelope) == (reply, arrays)
        assert len(list(kit.paths.releases.iterdir())) == 1

    assert at_every_step(kept, both, look) >= 5


def test_while_it_is_withheld(standstill: tuple[Standstill, bytes]) -> None:
    kept, envelope = standstill

    def look(kit: StationKit) -> None:
        if waiting(kit):
            assert asked(kit, envelope) == PENDING
            kit.reviewing.withhold(1, "anna", "no")
        assert asked(kit, envelope) == ("withheld", "REVIEW_WITHHELD")
        nothing_left(kit)

    assert at_every_step(kept, lambda kit: kit.reviewing.withhold(1, "anna", "no"), look) >= 3


def test_while_its_time_ends(standstill: tuple[Standstill, bytes]) -> None:
    kept, envelope = standstill

    def time_out(kit: StationKit) -> None:
        kit.clock.forward(hours=HOURS)
        kit.reviewing.look()

    def look(kit: StationKit) -> None:
        later(kit, hours=HOURS)
        assert asked(kit, envelope) == ("withheld", "REVIEW_TIMEOUT")
        nothing_left(kit)

    assert at_every_step(kept, time_out, look) >= 3


def test_while_it_is_parked(standstill: tuple[Standstill, bytes]) -> None:
    kept, envelope = standstill

    def look(kit: StationKit) -> None:
        # Nobody has been told that it waits before it does: either it waits whole, or there is nothing of it.
        assert left(kit) == []
        found = kit.reviewing.queue.find(digest(envelope), 2, "train")
        assert parked_files(kit) == (
            ["1.safetensors"] if found is None else ["1.safetensors", "2.safetensors"]
        )
        # What the train answers when it is asked again stands only where nothing stood.
        again = park_one(kit, envelope, 2, answer=9)
        assert kit.reviewing.queue.payload(again.number).document.metrics["loss"] == (
            0.009 if found is None else 0.007
        )

    assert at_every_step(kept, lambda kit: park_one(kit, envelope, 2, answer=7), look) >= 3


def test_while_a_whole_message_is_parked(standstill: tuple[Standstill, bytes]) -> None:
    """The steps after the train answered: the park itself, and letting container and cohort go."""
    kept, envelope = standstill

    def evaluate(kit: StationKit) -> None:
        kit.message(envelope, Kind.EVALUATE)

    with kept.going_on() as kit:
        killed_at(kit, _LAST_OF_A_MESSAGE, evaluate)
        assert asked(kit, envelope, Kind.EVALUATE) == PENDING
        assert waiting(kit) == [1, 2]
        assert left(kit) == []


_LAST_OF_A_MESSAGE = 10
