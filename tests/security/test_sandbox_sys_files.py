"""Attack: a train reads and changes the host's hardware by /sys."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_hardware_is_read_only(attacked: Attacked) -> None:
    attacked.stopped("sys-files", "EROFS|EACCES", "it is mounted read-only")
