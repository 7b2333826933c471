"""Attack: an answer before anything was asked, and another protocol in place of a greeting."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("attack", ["reply-before-request", "garbage-before-hello"])
def test_nothing_is_heard_before_it_is_asked(attacked: Attacked, attack: str) -> None:
    attacked.stopped(attack, "protocol")
