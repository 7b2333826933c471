"""Attack: a train crashes, so that patients' data is written to the host's disk as a dump."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_dump_is_left(attacked: Attacked) -> None:
    attacked.stopped("core-dump", "RLIMIT_CORE 0", "no dump was kept")
