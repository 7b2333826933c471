"""Attack: a train mounts, remounts, unmounts and changes its root, by the old calls and the new."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_nothing_is_mounted_or_unmounted(attacked: Attacked) -> None:
    attacked.stopped("mounts", "EPERM|ENOSYS")
