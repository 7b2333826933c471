"""Attack: a train computes on more processors than it was given, or for ever."""

import pytest
from sandbox_kit import Station

from station.sandbox.spec import ExitClass, TrainFailure, TrainStartError

pytestmark = pytest.mark.docker

CODE = """
import multiprocessing, os, time

def burn():
    end = time.monotonic() + 2
    while time.monotonic() < end:
        pass

before = os.times()
workers = [multiprocessing.get_context("fork").Process(target=burn) for _ in range(2)]
began = time.monotonic()
[worker.start() for worker in workers]
[worker.join() for worker in workers]
after = os.times()
used = (after.children_user + after.children_system) - (before.children_user + before.children_system)
found = used / (time.monotonic() - began)
"""


def test_processor_time_is_limited(station: Station) -> None:
    with station.session(cpus=0.5) as session:
        found = station.find(session, CODE)
    assert isinstance(found, float)
    assert found < 0.8


def test_a_train_that_never_answers_ends_at_the_deadline(station: Station) -> None:
    with station.session() as session:
        answer = station.ask(session, "while True: pass", timeout_s=1.5)
        assert isinstance(answer, TrainFailure)
        assert answer.exit_class is ExitClass.TIMEOUT
        assert answer.session_ended


def test_the_wall_clock_ends_a_container_that_compute_forgot(station: Station) -> None:
    try:
        with station.session(wall_clock_s=4) as session:
            answer = station.ask(session, "while True: pass", timeout_s=300)
            assert isinstance(answer, TrainFailure)
            assert station.launcher.wait(session.run_id, 60).timed_out
    except TrainStartError as error:  # a busy machine: the four seconds were over before its hello
        answer = error.failure
    assert answer.exit_class is ExitClass.TIMEOUT
