"""Attack: a train makes files without end, which take kernel memory and no bytes."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_files_have_a_number(attacked: Attacked) -> None:
    attacked.stopped("inode-bomb", "ENOSPC")
