"""Attack: a train reads which hospital it is at out of the files that the engine copies from the host."""

import socket
from pathlib import Path

import pytest
from sandbox_kit import Station

pytestmark = pytest.mark.docker

CODE = """
import os, platform
found = {name: open(name).read() for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")}
found["node"] = platform.node()
found["environment"] = sorted(os.environ)
"""


def test_nothing_names_the_hospital(station: Station) -> None:
    with station.session() as session:
        found = station.find(session, CODE)
    assert isinstance(found, dict)
    assert found["node"] == "train"
    assert found["/etc/hostname"].strip() == "train"
    settings = [line for line in found["/etc/resolv.conf"].splitlines() if line and not line.startswith("#")]
    assert [line for line in settings if line.startswith("nameserver")] in ([], ["nameserver 127.0.0.1"])
    own = Path("/etc/resolv.conf").read_text().split()
    leaked = [
        word
        for word in own
        if word in " ".join(settings).split() and word[0].isdigit() and word != "127.0.0.1"
    ]
    assert not leaked
    assert not [
        line for line in settings if line.startswith("search") and line.split()[1:] not in ([], ["."])
    ]
    assert socket.gethostname() not in (found["/etc/hosts"] + found["/etc/resolv.conf"]).split()
    assert set(found["environment"]) <= {
        "FLWR_DISABLE_UPDATE_CHECK", "FLWR_TELEMETRY_ENABLED", "HOME", "HOSTNAME", "LOGNAME", "MKL_NUM_THREADS",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "USER",
        "LC_CTYPE", "GRPC_VERBOSITY", "NVIDIA_VISIBLE_DEVICES",
    }  # fmt: skip
