"""Downloads of results that are broken off: the front is killed, the researcher's process is killed, what lies there is something else."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from orchestrator_site import STATIONS, wait_until
from result_documents import accepted_order, round_entry
from safetensors.numpy import save as save_arrays

from orchestrator.federation.orders import FolderQueue, RunProgress, RunState
from orchestrator.federation.ports import free_port
from orchestrator.initialise import initialise
from orchestrator.registry.access import Role
from orchestrator.results.write import write_result
from orchestrator.services import open_services
from orchestrator.settings import Home, parse_settings
from orchestrator.storage import OrderRow
from policies.blobs import BlobFolder
from policies.documents import digest_of_file
from policies.wire.registry_client import RegistryClient
from train_images.tool.results import fetch_result

pytestmark = pytest.mark.superlink

MODEL_BYTES = 96 << 20
ENOUGH = 8 << 20
"""After so many bytes something is killed: more than any buffer on the way holds is then still to come."""

KILLED_CLIENT = """
import os, signal, sys
from pathlib import Path
from policies.wire.registry_client import RegistryClient
from train_images.tool.results import fetch_result

def die(name, count):
    if name == "model.safetensors" and count >= int(sys.argv[6]):
        os.kill(os.getpid(), signal.SIGKILL)

url, ca, token, digest, out = sys.argv[1:6]
fetch_result(RegistryClient(url, Path(ca), Path(token).read_text()), digest, Path(out), die)
"""


@dataclass
class Downloads:
    """A real orchestrator with a finished run of a large model."""

    home: Home
    url: str
    token: str
    digest: str

    def client(self) -> RegistryClient:
        return RegistryClient(self.url, self.home.ca_certificate, self.token)

    def front(self) -> int:
        """The front's process now; the supervisor starts another one when it ends."""
        found: list[int] = []

        def there() -> bool:
            found[:] = [pid for pid in processes(self.home.path) if b"orchestrator.front" in command(pid)]
            return bool(found)

        wait_until(there, 60, "a front")
        return found[0]

    @property
    def model(self) -> Path:
        return FolderQueue(self.home.runs).folder(self.digest).path / "result" / "model.safetensors"


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def processes(home: Path) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(home).encode() in command(int(entry.name))
    ]


@contextmanager
def serving(home: Home) -> Iterator[None]:
    code = "from orchestrator.cli import main; main()"
    arguments = [sys.executable, "-c", code, "serve", str(home.path), "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "ready"
            yield
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Downloads]:
    folder = tmp_path_factory.mktemp("downloads")
    settings = parse_settings({"front": {"hosts": ["localhost"], "port": free_port(), "bind": "127.0.0.1"}})
    home = initialise(folder / "home", settings, None)
    services = open_services(home)
    token = services.access.new_token(Role.RESEARCHER, "alice")
    accepted = accepted_order(folder=folder)
    with services.database.transaction() as session:
        session.add(
            OrderRow(
                digest=accepted.order_digest,
                order_id=accepted.order.order_id,
                policy_id="trivial",
                policy_version=1,
                requester="researcher:alice",
                accepted=datetime.now(UTC),
            )
        )
    services.close()
    numbers = np.random.default_rng(7).random(MODEL_BYTES // 8, dtype=np.float64)
    model = BlobFolder(home.blobs).put_bytes(save_arrays({"weight": numbers}))
    run = FolderQueue(home.runs).submit(accepted)
    run.write_rounds([round_entry(1, dict.fromkeys(STATIONS, 0.7), dict.fromkeys(STATIONS, 50))])
    run.write_progress(RunProgress(state=RunState.FINISHED, round=1, rounds=1, weights=model.digest))
    write_result(run.path, BlobFolder(home.blobs), home.notary_key)
    with serving(home):
        yield Downloads(home, settings.url, token, accepted.order_digest)


def test_a_front_that_is_killed_in_mid_download_costs_no_byte_twice(
    downloads: Downloads, tmp_path: Path
) -> None:
    front = downloads.front()
    killed: list[int] = []
    seen: list[int] = []

    def on_bytes(name: str, count: int) -> None:
        if name != "model.safetensors":
            return
        seen.append(count)
        # Nothing has its name before its bytes are verified.
        assert not (tmp_path / "model.safetensors").exists()
        assert not (tmp_path / "provenance.json").exists()
        if count >= ENOUGH and not killed:
            killed.append(count)
            os.kill(front, signal.SIGKILL)

    with downloads.client() as client:
        files = fetch_result(client, downloads.digest, tmp_path, on_bytes)
    assert killed
    assert downloads.front() != front
    assert seen == sorted(seen)
    assert {file.name for file in files} >= {"model.safetensors", "provenance.json", "provenance.dsse.json"}
    assert digest_of_file(tmp_path / "model.safetensors") == digest_of_file(downloads.model)
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".part", ".new"}]


def test_a_researchers_process_that_is_killed_goes_on_where_it_was(
    downloads: Downloads, tmp_path: Path
) -> None:
    out, token = tmp_path / "out", tmp_path / "token"
    token.write_text(downloads.token)
    arguments = [downloads.url, downloads.home.ca_certificate, token, downloads.digest, out, ENOUGH]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_CLIENT, *map(str, arguments)], check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
    held = (out / "model.safetensors.part").stat().st_size
    assert not {"model.safetensors", "provenance.json"} & {path.name for path in out.iterdir()}
    seen: list[int] = []
    with downloads.client() as client:
        fetch_result(
            client,
            downloads.digest,
            out,
            lambda name, count: seen.append(count) if "model.s" in name else None,
        )
        assert seen[0] > held
        assert digest_of_file(out / "model.safetensors") == digest_of_file(downloads.model)
        # What is there and is the one is not fetched again.
        seen.clear()
        fetch_result(client, downloads.digest, out, lambda _, count: seen.append(count))
    assert seen == []


@pytest.mark.parametrize("left", [b"\0" * ENOUGH, b"\0" * (MODEL_BYTES + ENOUGH)], ids=["less", "more"])
def test_what_lies_there_and_is_something_else_is_fetched_anew(
    downloads: Downloads, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(left)
    (tmp_path / "metrics.json").write_text("{}")
    with downloads.client() as client:
        fetch_result(client, downloads.digest, tmp_path)
    assert digest_of_file(tmp_path / "model.safetensors") == digest_of_file(downloads.model)
    assert json.loads((tmp_path / "metrics.json").read_bytes())["order_digest"] == downloads.digest
