"""Attack: a train connects to sockets of the host that have no file."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_no_socket_without_a_file_is_within_reach(attacked: Attacked) -> None:
    attacked.stopped("abstract", "ECONNREFUSED", "none is listed", "nobody came")
