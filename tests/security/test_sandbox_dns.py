"""Attack: a train asks for names, by its library and by each resolver of the host."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_name_is_resolved(attacked: Attacked) -> None:
    attacked.stopped("dns", "failure in name resolution|not known|EAI")
