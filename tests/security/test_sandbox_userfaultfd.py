"""Attack: a train holds the kernel up at a page fault."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_page_faults_of_the_kernel_are_not_its(attacked: Attacked) -> None:
    attacked.stopped("userfaultfd", "EPERM|ENOSYS")
