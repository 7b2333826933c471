"""Attack: a train opens raw, packet and netlink-changing sockets."""

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import socket
found = []
for name, arguments in {
    "icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
    "vsock": (getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM, 0),
}.items():
    try:
        sock = socket.socket(*arguments)
        if name == "vsock":
            sock.settimeout(1)
            sock.connect((2, 1024))
        found.append(name)
    except OSError:
        pass
"""


def test_a_train_opens_no_raw_socket(station: Station) -> None:
    with station.session() as session:
        assert station.find(session, CODE) == []
