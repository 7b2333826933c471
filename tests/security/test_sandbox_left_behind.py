"""Attack: a train finds what an earlier one left in the places it could write to."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_every_train_starts_in_empty_places(attacked: Attacked) -> None:
    attacked.stopped("left-behind", "it is empty")
