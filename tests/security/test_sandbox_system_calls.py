"""Attack: a train makes the system calls that a filter is there for."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_a_filter_is_in_force(attacked: Attacked) -> None:
    attacked.stopped("seccomp", "mode 2", "each was refused")
