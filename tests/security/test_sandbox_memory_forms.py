"""Attack: a train takes memory without end in each form that a limit could miss: pages, memory files, segments, files in tmpfs."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("form", ["", "-memfd", "-scratch", "-shm", "-sysv"])
def test_each_form_of_memory_counts(attacked: Attacked, form: str) -> None:
    attacked.stopped(f"memory-bomb{form}", "killed|ENOMEM|ENOSPC")


def test_the_kernel_shows_the_limits_that_were_asked_for(attacked: Attacked) -> None:
    line = attacked.stopped("ceilings")
    assert len(line.attempts) >= 4, "memory, swap, processes and processor time"
