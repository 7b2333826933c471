"""Attack: a train leaves dead processes behind until nobody can start one."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_dead_processes_are_taken_away(attacked: Attacked) -> None:
    attacked.stopped("zombies", "process 1 takes them away")
