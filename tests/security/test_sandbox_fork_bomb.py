"""Attack: a train starts processes without end."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import os, signal
children = []
try:
    while len(children) < 5000:
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        children.append(child)
except OSError:
    pass
found = len(children)
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
"""


def test_processes_are_counted(station: Station) -> None:
    with station.session(pids=40) as session:
        found = station.find(session, CODE)
        assert isinstance(found, int)
        assert 5 < found < 40
        assert station.find(session, "found = 'still there'") == "still there"
