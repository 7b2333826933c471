"""Attack: a train keeps and reads keys in the kernel's keyrings."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_keyrings_are_closed(attacked: Attacked) -> None:
    attacked.stopped("keyring", "EPERM|ENOSYS")
