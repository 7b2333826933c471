"""Attack: a train sets the host's clock."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_clock_is_the_hosts(attacked: Attacked) -> None:
    attacked.stopped("clock", "EPERM|ENOSYS")
