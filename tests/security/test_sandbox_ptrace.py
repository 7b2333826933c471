"""Attack: a train traces, reads and signals processes of the host."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_hosts_processes_do_not_exist_for_it(attacked: Attacked) -> None:
    attacked.stopped("other-processes", "ESRCH")
