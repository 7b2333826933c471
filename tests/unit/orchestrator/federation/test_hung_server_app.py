"""A ServerApp whose rounds hang does not go on saying that it is alive."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.federation.orders import ALIVE, RunFolder
from orchestrator.federation.server_app import HUNG_S, Movement, _Life, _say_alive
from tests.faults.topology import until


@dataclass
class Hanging:
    """A thread that waits for what does not come, watched by a clock on which a long time passes with each look."""

    moment: float = 0.0
    step_s: float = HUNG_S + 1
    comes: threading.Event = field(default_factory=threading.Event)
    ends: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.thread.start()
        assert self.thread.ident is not None
        self.movement = Movement(self.thread.ident, self._now)

    def _wait(self) -> None:
        self.comes.wait()
        sum(range(10_000))
        self.ends.wait()

    def _now(self) -> float:
        self.moment += self.step_s
        return self.moment

    def hangs(self) -> bool:
        return not self.movement.goes_on()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    found = Hanging()
    yield found
    found.comes.set()
    found.ends.set()
    found.thread.join(60)


class SomeTurns(threading.Event):
    """The end comes at the third look."""

    looks = 0

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self.looks += 1
        return self.looks == 3


def test_a_thread_that_uses_no_processor_hangs_and_one_that_does_again_goes_on(hanging: Hanging) -> None:
    assert until(hanging.hangs, 60)
    assert hanging.hangs()
    hanging.comes.set()
    assert until(hanging.movement.goes_on, 60)


def test_a_process_whose_rounds_hang_is_not_said_to_be_alive(tmp_path: Path, hanging: Hanging) -> None:
    folder = RunFolder(tmp_path)
    assert until(hanging.hangs, 60)
    _say_alive(folder, _Life(SomeTurns()), hanging.movement)
    assert not (tmp_path / ALIVE).exists()
    # This one goes on: it runs the test.
    _say_alive(folder, _Life(SomeTurns()), Movement(threading.get_ident()))
    assert (tmp_path / ALIVE).exists()


def test_a_thread_that_has_ended_does_not_go_on(hanging: Hanging) -> None:
    hanging.comes.set()
    hanging.ends.set()
    hanging.thread.join(60)
    assert until(hanging.hangs, 60)
