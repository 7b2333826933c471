"""Attack: a train looks for the container engine and for the station's own sockets."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import os, stat
found = []
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) != "/proc"]
    for name in files:
        try:
            if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode):
                found.append(os.path.join(folder, name))
        except OSError:
            pass
abstract = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if "@" in line]
found += abstract
"""


def test_no_socket_is_within_reach(station: Station) -> None:
    with station.session() as session:
        assert station.find(session, CODE) == []
