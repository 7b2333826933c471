"""Attack: a train that puts itself in the place of its control socket, or connects a second time."""

import pytest
from selftest_kit import Attacked

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("attack", ["control-socket", "second-connection"])
def test_there_is_one_socket_and_one_connection(attacked: Attacked, attack: str) -> None:
    attacked.stopped(attack)
