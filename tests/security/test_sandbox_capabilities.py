"""Attack: a train has, takes or raises capabilities."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_there_is_no_capability_to_be_had(attacked: Attacked) -> None:
    attacked.stopped("capabilities", "none", "EPERM")
