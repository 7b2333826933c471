"""Attack: a train reaches for the launcher and for the station's programs."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


def test_the_stations_sockets_are_not_there(attacked: Attacked) -> None:
    attacked.stopped("launcher-socket", "ENOENT")
