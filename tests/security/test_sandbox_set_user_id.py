"""Attack: a train runs a program of its image that is set-user-id to root."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_a_program_does_not_make_it_root(attacked: Attacked) -> None:
    attacked.stopped("set-user-id", "it ran as the train's own user", "no_new_privs is set")
