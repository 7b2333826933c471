"""Attack: a train loads a module or another kernel, or restarts the host."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_kernel_is_the_hosts(attacked: Attacked) -> None:
    attacked.stopped("modules", "EPERM|ENOSYS")
