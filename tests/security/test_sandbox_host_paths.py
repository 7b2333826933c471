"""Attack: a train reads a file of the host by path, link, handle and the kernel's own links."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_way_leads_to_a_file_of_the_host(attacked: Attacked) -> None:
    attacked.stopped("host-paths", "ENOENT", "EPERM|ENOSYS")
