"""Attack: a train changes the host by /proc: sysrq, core_pattern, modprobe."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_proc_changes_nothing(attacked: Attacked) -> None:
    attacked.stopped("proc-writes", "EROFS|EACCES", "oom_score_adj")
