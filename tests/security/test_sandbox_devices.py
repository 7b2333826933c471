"""Attack: a train finds, makes and opens devices."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_device_is_there_or_made(attacked: Attacked) -> None:
    attacked.stopped("devices", "ENOENT", "EPERM", "only those that every program has")
