"""Attack: a train changes the network and asks the kernel's audit by netlink."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_kernel_takes_no_change_by_netlink(attacked: Attacked) -> None:
    attacked.stopped("netlink", "EPERM|EACCES|EPROTONOSUPPORT")
