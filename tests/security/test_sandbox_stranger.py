"""Attack: a program of the host takes a train's place on its control socket."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_a_stranger_is_not_spoken_to(attacked: Attacked) -> None:
    attacked.stopped("stranger", "its connection was closed")
