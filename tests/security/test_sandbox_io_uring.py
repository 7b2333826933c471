"""Attack: a train asks by io_uring for what was refused otherwise."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_a_ring_opens_nothing_more(attacked: Attacked) -> None:
    attacked.stopped("io-uring", "EACCES|EPERM|ENOSYS")
