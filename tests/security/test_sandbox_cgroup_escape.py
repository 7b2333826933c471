"""Attack: a train changes its limits, leaves its control group, or sets a release_agent."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_its_control_group_is_closed(attacked: Attacked) -> None:
    attacked.stopped("control-groups", "EROFS|EACCES", "it sees itself at the root")
