"""Attack: a train runs programs in the kernel, measures others, watches files."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_program_runs_in_the_kernel(attacked: Attacked) -> None:
    attacked.stopped("programs-in-the-kernel", "EPERM|EACCES|ENOSYS")
