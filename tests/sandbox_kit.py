"""What the tests of the sandbox share: one test train whose code each test brings along, and a real launcher under it.

The train is hostile on purpose: its request's config holds Python code, which it runs inside the container. So every attack is
the attack itself and not an image of its own.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_kit import HOST_DOCKER, Engine

from policies.blobs import BlobFolder
from policies.image_archive import split_image
from station.sandbox.launcher.service import local_launcher
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import (
    MIB,
    ContainerSpec,
    Launcher,
    LauncherSettings,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
)
from train_images.base.build import BASE_IMAGE, build_base_images

APP = """
import json
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
kept = {}

@app.train()
@app.evaluate()
@app.query()
def run(message, context):
    place = {"message": message, "context": context, "kept": kept, "found": None, "arrays": {}, "metrics": {}, "rows": {}}
    exec(message.content["config"].get("code", ""), place)
    print("FOUND", message.content["config"].get("token"), json.dumps(place["found"]), flush=True)
    return Message(content=RecordDict({
        "arrays": ArrayRecord({name: Array(value) for name, value in place["arrays"].items()}),
        "metrics": MetricRecord(place["metrics"]),
        "rows": MetricRecord(place["rows"]),
    }), reply_to=message)
"""

PACKAGES = "/opt/train/lib/python3.11/site-packages"
DOCKERFILE = f"""
FROM {BASE_IMAGE}
COPY app.py {PACKAGES}/pht_test_app.py
COPY train.json /opt/pht/train.json
"""
DESCRIPTION = {"interface": "flower", "clientapp": "pht_test_app:app"}


def build_image(
    tag: str, dockerfile: str = DOCKERFILE, description: Mapping[str, object] = DESCRIPTION, **files: str
) -> None:
    """Build a test train's image on the base image, which is made when it is not there."""
    build_base_images(lambda _line: None, torch=False)
    with tempfile.TemporaryDirectory() as made:
        context = Path(made)
        (context / "app.py").write_text(APP)
        (context / "train.json").write_text(json.dumps(description))
        (context / "Dockerfile").write_text(dockerfile)
        for name, content in files.items():
            (context / name).write_text(content)
        subprocess.run(
            ["docker", "build", "-q", "--force-rm", "--network=none", "-t", tag, made],
            check=True,
            capture_output=True,
            timeout=300,
        )


def store_image(tag: str, store: BlobFolder) -> str:
    """Put an image of the engine into a layer store; returns its config's digest."""
    with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        image = split_image(saving.stdout, store)
        saving.stdout.read()
    assert saving.returncode == 0
    return image.config.digest


def remove_image(name: str) -> None:
    """Remove an image that a test made."""
    subprocess.run(["docker", "rmi", "-f", name], check=False, capture_output=True, timeout=60)


@dataclass
class Station:
    """The parts of a station that a sandbox needs."""

    home: Path
    config_digest: str
    launcher: Launcher
    settings: LauncherSettings

    @property
    def store(self) -> BlobFolder:
        return BlobFolder(self.home / "compute" / "layers")

    def spec(self, **changed: object) -> ContainerSpec:
        run_id = f"run-{uuid.uuid4().hex[:12]}"
        cohort = self.home / "compute" / "cohorts" / run_id
        cohort.mkdir(parents=True)
        (cohort / "datalist.json").write_text('{"training": []}')
        (cohort / "datalist.json").chmod(0o640)
        values: dict[str, object] = {
            "run_id": run_id,
            "image_config_digest": self.config_digest,
            "cohort_dir": str(cohort),
            "control_dir": str(self.home / "compute" / "control" / run_id),
            "memory_bytes": 512 * MIB,
            "cpus": 1.0,
            "pids": 64,
            "scratch_bytes": 32 * MIB,
            "wall_clock_s": 300,
        }
        return ContainerSpec.model_validate(values | changed)

    @contextlib.contextmanager
    def session(self, **changed: object) -> Iterator[TrainSession]:
        session = TrainSandbox(self.launcher, start_timeout_s=180).start(self.spec(**changed))
        try:
            yield session
        finally:
            session.stop()

    def ask(
        self,
        session: TrainSession,
        code: str,
        *,
        timeout_s: float = 180,
        max_arrays_bytes: int = MIB,
        token: str = "",
    ) -> TrainReply | TrainFailure:
        limits = ReplyLimits(self.home / "reply.safetensors", max_arrays_bytes)
        return session.exchange(TrainRequest("train", 1, {"code": code, "token": token}), limits, timeout_s)

    def find(self, session: TrainSession, code: str) -> object:
        """Run code in the container and return what it left in `found`."""
        token = uuid.uuid4().hex
        answer = self.ask(session, code, token=token)
        assert isinstance(answer, TrainReply), (answer, session.logs())
        log = logged(session, f"FOUND {token}")
        (line,) = [line for line in log.splitlines() if line.startswith(f"FOUND {token} ")]
        return json.loads(line.removeprefix(f"FOUND {token} "))


def logged(session: TrainSession, text: str) -> str:
    """Wait until the engine has written a text to a container's log, and return the log."""
    deadline = time.monotonic() + 180
    while text not in (log := session.logs()):
        assert time.monotonic() < deadline, log
        threading.Event().wait(0.02)
    return log


def _probe(tag: str, store: BlobFolder) -> str:
    given = os.environ.get("PHT_TEST_IMAGE")
    if given is None:
        build_image(tag)
        return store_image(tag, store)
    with Path(given).open("rb") as saved:
        return split_image(saved, store).config.digest


@contextlib.contextmanager
def running_station(
    home: Path, *, tag: str = "pht-test-probe:1", engine: Engine = HOST_DOCKER
) -> Iterator[Station]:
    """Yield a station with a launcher in this process and the test train in its layer store.

    The train's image is built with this machine's Docker, or read from the archive that ``PHT_TEST_IMAGE`` names where there is
    none; it runs in `engine`.
    """
    for name in ("cohorts", "control", "layers"):
        (home / "compute" / name).mkdir(parents=True)
    settings = engine.settings()
    digest = _probe(tag, BlobFolder(home / "compute" / "layers"))
    launcher = local_launcher(home, settings)
    try:
        yield Station(home, digest, launcher, settings)
    finally:
        launcher.remove_orphans()
        shutil.rmtree(home / "compute" / "layers")
