"""Attack: a train tries to reach a network, by name and by address."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import os, socket
found = {"interfaces": [name for _, name in socket.if_nameindex()], "reached": []}
for family, address in (
    (socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET, ("172.17.0.1", 2375)), (socket.AF_INET, ("169.254.169.254", 80)),
    (socket.AF_INET6, ("2001:db8::1", 80)),
):
    with socket.socket(family) as sock:
        sock.settimeout(2)
        try:
            sock.connect(address)
            found["reached"].append(address)
        except OSError:
            pass
try:
    found["resolved"] = socket.gethostbyname("example.org")
except OSError:
    found["resolved"] = None
found["routes"] = len(open("/proc/net/route").read().splitlines()) - 1
found["listening"] = len(open("/proc/net/tcp").read().splitlines()) - 1
"""


def test_a_train_has_no_network(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, CODE)
    assert found == {"interfaces": ["lo"], "reached": [], "resolved": None, "routes": 0, "listening": 0}
