"""Attack: a train makes namespaces in which it would be root, or enters the host's."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_namespace_is_made_or_entered(attacked: Attacked) -> None:
    attacked.stopped("namespaces", "EPERM|ENOSYS", "ENOENT")
