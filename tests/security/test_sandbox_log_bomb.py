"""Attack: a train writes without end to its output, to fill the host's disk."""

import subprocess
from pathlib import Path

import pytest
from sandbox_kit import Station

from station.sandbox.spec import MIB, TrainReply

pytestmark = pytest.mark.docker


def test_logs_are_bounded_on_disk_and_in_answers(station: Station) -> None:
    with station.session() as session:
        answer = station.ask(session, "for _ in range(20000): print('x' * 1000)")
        assert isinstance(answer, TrainReply)
        assert len(session.logs(10_000).encode()) <= 10_000
        assert len(station.launcher.logs(session.run_id, 1 << 30).encode()) <= 512 * 1024
        shown = subprocess.run(
            ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label=nl.pht.run={session.run_id}"],
            check=True,
            capture_output=True,
            text=True,
        )
        folder = Path("/var/lib/docker/containers") / shown.stdout.strip()
        if folder.is_dir():  # readable to root on the engine's own host only
            size = sum(file.stat().st_size for file in folder.glob("*-json.log*"))
            assert size <= 3 * MIB
