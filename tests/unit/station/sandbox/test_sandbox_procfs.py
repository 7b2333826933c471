"""A process that ended between two looks at it is no container that was made otherwise than asked."""

import os
from pathlib import Path

import pytest

from station.sandbox.engine.procfs import is_over, view_of

ANY_GROUP = ""
"""Stands in the name of every control group."""


@pytest.fixture
def ended() -> int:
    """A process that has ended and that nobody has asked for yet."""
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
    return child


def test_a_process_that_has_ended_shows_nothing(ended: int) -> None:
    assert view_of(os.getpid(), ANY_GROUP) is not None
    assert view_of(ended, ANY_GROUP) is None
    os.waitpid(ended, 0)
    assert view_of(ended, ANY_GROUP) is None


def test_one_that_is_ending_has_no_memory_any_more() -> None:
    status = Path("/proc/self/status").read_text()
    assert not is_over(status)
    ending = "".join(line for line in status.splitlines(keepends=True) if not line.startswith("Vm"))
    assert is_over(ending)
    assert is_over("")
    assert is_over(status.replace("State:\tR", "State:\tX"))
