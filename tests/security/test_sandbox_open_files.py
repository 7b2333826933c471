"""Attack: a train exhausts what the kernel counts per process: open files, core dumps."""

import pytest
from sandbox_kit import Station

from station.sandbox.spec import MIB

pytestmark = pytest.mark.docker


def test_limits_of_a_process_are_hard(station: Station) -> None:
    code = """
import resource
found = [list(resource.getrlimit(getattr(resource, "RLIMIT_" + name))) for name in ("NOFILE", "CORE", "FSIZE")]
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000))
    found.append("raised")
except (ValueError, OSError):
    pass
"""
    with station.session() as session:
        assert station.find(session, code) == [[4096, 4096], [0, 0], [32 * MIB, 32 * MIB]]
