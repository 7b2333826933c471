"""Attack: a train reads memory that the host's programs share."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_hosts_memory_is_not_shared_with_it(attacked: Attacked) -> None:
    attacked.stopped("shared-memory", "none is there", "ENOENT")
