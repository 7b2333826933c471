"""A whole station with a map order over the real engine: from the signed order to tables that the orchestrator takes."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import station_kit
from map_kit import DESCRIPTION, DOCKERFILE
from map_runs import ORDER, analyse, map_kit
from sandbox_kit import build_image, remove_image, store_image
from station_kit import StationKit, instruction

from orchestrator.federation.replies import Accepted, check_reply
from policies.blobs import BlobFolder
from policies.manifest import TrainManifest
from policies.policy import ReleaseRules
from policies.refusals import RefusalCode
from policies.wire.instructions import Kind, Status
from station.sandbox.launcher.service import local_launcher
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import MIB, LauncherSettings

pytestmark = pytest.mark.docker

TAG = "pht-test-map-order:1"
PROGRAM = """
import json, time
from pathlib import Path

data = Path("/train/data")
(image,) = (data / "images").iterdir()
values = image.read_bytes()[352:]
if json.loads(Path("request/head.json").read_text())["config"]["wait"]:
    time.sleep(600)
share = sum(values[1::2]) / len(values[1::2]) / 255
lines = (data / "clinical.csv").read_text().splitlines()
Path("reply/row.txt").write_text(f"lung_share={share}\\nnodules={len(lines) - 1}\\nsex=\\n")
"""
WAIT = {"wait": {"type": "int", "minimum": 0, "maximum": 1, "default": 0}}


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StationKit]:
    """A station in process whose containers are real."""
    build_image(TAG, DOCKERFILE, DESCRIPTION, **{"probe.py": PROGRAM})
    digest = store_image(TAG, BlobFolder(tmp_path / "home" / "compute" / "layers"))
    monkeypatch.setattr(station_kit, "IMAGE", digest)
    settings = LauncherSettings(
        station="amstel", compute_uid=0, max_containers=1, max_memory_bytes=1024 * MIB, max_cpus=2.0, max_pids=512,
        max_scratch_bytes=64 * MIB,
    )  # fmt: skip
    made = map_kit(
        tmp_path,
        monkeypatch,
        {"image_config_digests": [digest], "runs.hyperparameters": WAIT},
        hyperparameters=WAIT,
    )
    made.database.close()
    launcher: Any = local_launcher(tmp_path / "home", settings)
    sandbox: Any = TrainSandbox(launcher, start_timeout_s=120)
    made.launcher, made.sandbox = launcher, sandbox
    made.open()
    # Half of the forty: a container each takes a while.
    made.intake.consent(**{f"p{number}": "objection" for number in range(20)})
    yield made
    made.close()
    launcher.remove_orphans()
    remove_image(TAG)


def asked(wait: int) -> dict[str, Any]:
    return {**ORDER, "hyperparameters": {"wait": wait}}


def test_a_signed_order_becomes_tables_and_leaves_nothing_behind(kit: StationKit) -> None:
    envelope = kit.ready(**asked(0))
    reply = analyse(kit, envelope, config={"wait": 0})
    assert reply.status is Status.RELEASED, reply
    told = sum(line[0] for line in reply.tables["ends"])
    assert reply.tables["ends"][0] == [told]
    assert told >= 3
    assert sum(line[0] for line in reply.tables["lung_shares"]) == told
    assert reply.tables["nodules_by_sex"][1] == [0, 0, told]
    manifest = TrainManifest.model_validate_json(station_kit.MANIFEST)
    question = instruction(envelope, Kind.ANALYSE, 1, weights=None, config={"wait": 0})
    rules = ReleaseRules(
        tables=("lung_shares", "nodules_by_sex", "ends"), minimum_cell_count=3, maximum_bytes=100_000
    )
    assert check_reply(reply, question, manifest, rules) == Accepted()
    assert kit.launcher.list_runs() == ()  # type: ignore[attr-defined]
    (cohort,) = kit.warm.cohorts()
    assert list((cohort.parent / "patients").iterdir()) == []
    kit.message(envelope, Kind.FINISH, 0)
    assert list(kit.paths.cohorts.iterdir()) == []
    assert list(kit.paths.control.iterdir()) == []


def test_a_withdrawal_kills_the_containers_of_the_moment(kit: StationKit) -> None:
    launcher: Any = kit.launcher
    envelope = kit.ready(**asked(1))
    replies: list[Any] = []
    thread = threading.Thread(
        target=lambda: replies.append(analyse(kit, envelope, config={"wait": 1})), daemon=True
    )
    thread.start()
    deadline = time.monotonic() + 120
    while not any(run.state == "running" for run in launcher.list_runs()):
        assert time.monotonic() < deadline, replies
        threading.Event().wait(0.1)
    kit.intake.consent(**{f"p{number}": "objection" for number in range(26)})
    kit.catalogue.sync()
    kit.warm.withdraw(kit.gatekeeper.consenting)
    thread.join(120)
    assert (replies[0].status, replies[0].code) == (Status.FAILED, RefusalCode.CONSENT_WITHDRAWN)
    assert launcher.list_runs() == ()
    assert kit.releases.list() == []
