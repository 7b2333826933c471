"""Attack: a train changes the cohort, whose files are everybody's to write."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_cohort_stays_as_it_is(attacked: Attacked) -> None:
    attacked.stopped("cohort-written", "EROFS")
