"""A release that waits for a person, through the real programs: compute as a process, its API on a socket, `pht-station` typed."""

import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from review_kit import REVIEWED, asked, park_one, parked_files, reviewed
from station_documents import MANIFEST
from station_kit import StationKit, settings
from station_programs import open_folder, until

from policies.blobs import BlobFolder
from policies.documents import format_moment
from station.installation import install
from station.layout import StationPaths
from station.settings import OrchestratorSettings
from station.web.client import LocalApi
from tests.e2e.programs import environment, run, run_json

NOW = datetime.now(UTC).replace(microsecond=0)


def a_station_of(kit: StationKit, home: Path) -> StationPaths:
    """A home that real programs run on, with the records of a station in process."""
    ca = trustme.CA().cert_pem.bytes()
    orchestrator = OrchestratorSettings(
        url="https://localhost:1", mirror_url="https://localhost:1/mirror", ca_file="ca.pem"
    )
    install(home, settings(orchestrator=orchestrator), kit.board.repository.root.pinnable(), ca)
    paths, before = StationPaths(home), kit.paths
    kit.close()
    with closing(sqlite3.connect(before.database)) as old, closing(sqlite3.connect(paths.database)) as new:
        old.backup(new)
    for name in ("compute/reviews", "compute/trust", "handover"):
        shutil.rmtree(paths.home / name)
        shutil.copytree(before.home / name, paths.home / name)
    key = kit.intake.key.public_key()
    paths.handover_key.write_bytes(
        key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    BlobFolder(paths.layers).put_bytes(MANIFEST)
    return paths


class Compute:
    """The compute service alone: it needs neither engine nor orchestrator to hear a person."""

    def __init__(self, paths: StationPaths, log: Path) -> None:
        self._paths, self._log = paths, log

    def start(self) -> None:
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "station.services", "compute", str(self._paths.home)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(),
            )
        until(self._answers, "compute does not answer")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            return probe.connect_ex(str(self._paths.api_socket)) == 0

    def reviews(self, query: str = "") -> list[dict[str, Any]]:
        """What the command line asks for, without the second that it takes to start."""
        paths = self._paths
        rows: list[dict[str, Any]] = LocalApi(paths.api_socket, paths.api_token).get(f"/v1/reviews{query}")
        return rows

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def station() -> Iterator[tuple[StationPaths, Compute]]:
    """A station where one release waits, and one has waited too long."""
    with open_folder() as folder:
        kit = reviewed(folder / "kit", policy=REVIEWED | _valid())
        kit.clock.now = NOW
        kit.board.publish(now=NOW)
        kit.intake.consent(source=NOW, p0="consent")
        day = timedelta(days=1)
        envelope = kit.ready(issued=format_moment(NOW - day), expires=format_moment(NOW + day))
        assert asked(kit, envelope) == ("pending", "REVIEW_PENDING")
        kit.reviewing.queue._clock = lambda: NOW - timedelta(hours=3)
        park_one(kit, envelope, 2)
        assert parked_files(kit) == ["1.safetensors", "2.safetensors"]
        paths = a_station_of(kit, folder / "home")
        compute = Compute(paths, folder / "compute.log")
        try:
            compute.start()
            yield paths, compute
        finally:
            compute.kill()


def _valid() -> dict[str, object]:
    return {
        "valid_from": format_moment(NOW - timedelta(days=1)),
        "valid_until": format_moment(NOW + timedelta(days=30)),
    }


def test_a_person_lets_a_release_go(station: tuple[StationPaths, Compute], tmp_path: Path) -> None:
    paths, compute = station

    # Nobody has asked: the station itself withholds what waited too long.
    until(lambda: [row["number"] for row in compute.reviews()] == [1], "it still waits")
    until(lambda: _files(paths.reviews) == ["1.safetensors"], "its payload is still there")
    assert [row["code"] for row in compute.reviews("?everything=true")] == [None, "REVIEW_TIMEOUT"]
    picture = tmp_path / "deltas.svg"
    shown = run("pht-station", "review", "show", 1, "--picture", picture, "--home", paths.home)
    assert "layer.weight" in shown
    assert picture.read_bytes().startswith(b"<svg")
    compute.kill()
    compute.start()
    (waiting,) = run_json("pht-station", "review", "list", "--home", paths.home)
    assert waiting["number"] == 1
    word = run_json("pht-station", "review", "release", 1, "--home", paths.home)
    assert (word["state"], len(word["words"])) == ("released", 1)
    (released,) = run_json("pht-station", "releases", "--home", paths.home)
    assert (released["round"], released["stage"], released["metrics"]) == (1, "train", {"loss": 0.001})
    assert (_files(paths.reviews), len(_files(paths.releases))) == ([], 1)
    assert run_json("pht-station", "egress", "verify", "--home", paths.home)["intact"]
    run("pht-station", "review", "release", 1, "--home", paths.home, expect=2)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
