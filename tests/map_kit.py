"""A map train whose code each test brings along, over a real launcher: see `sandbox_kit` for the train of one container."""

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from map_documents import MAP_ROWS, map_manifest
from roster_kit import by_own_names
from sandbox_kit import build_image, store_image

from policies.blobs import BlobFolder
from policies.documents import canonical_json
from policies.manifest import TrainManifest
from policies.splits import Split
from station.cohorts import FrozenCohort, PatientFolders
from station.cohorts.frozen import digest_folder
from station.cohorts.layout import seal, write_file
from station.sandbox.launcher.service import local_launcher
from station.sandbox.mapping import MapReply, MapSession, MapTerms
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
from train_images.base.build import BASE_IMAGE

TAG = "pht-test-map:1"
DOCKERFILE = f"""
FROM {BASE_IMAGE}
COPY probe.py /opt/pht/probe.py
COPY train.json /opt/pht/train.json
"""
DESCRIPTION = {"interface": "map", "argv": ["/opt/train/bin/python", "/opt/pht/probe.py"]}
PROBE = """
import json
from pathlib import Path

place = {"row": {}, "text": None}
exec(json.loads(Path("request/head.json").read_text())["config"]["code"], place)
Path("reply/row.json").write_text(json.dumps(place["row"]) if place["text"] is None else place["text"])
"""
PATIENTS = tuple(f"patient{letter}" for letter in "abcdefgh")


@dataclass
class Recorded:
    """Starts containers, and keeps what each answered before the station counts it."""

    sandbox: TrainSandbox
    answers: list[dict[str, Any]] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, spec: ContainerSpec) -> TrainSession:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        session = self.sandbox.start(spec)
        recorded: Any = _Session(session, self)
        return recorded

    def stop(self, run_id: str) -> None:
        self.sandbox.stop(run_id)

    def note(self, answer: TrainReply | TrainFailure) -> None:
        with self._lock:
            if isinstance(answer, TrainReply):
                self.answers.append(dict(answer.metrics))

    def ended(self) -> None:
        with self._lock:
            self._now -= 1


class _Session:
    def __init__(self, session: TrainSession, recorded: Recorded) -> None:
        self._session, self._recorded = session, recorded

    def exchange(
        self, request: TrainRequest, limits: ReplyLimits, timeout_s: float
    ) -> TrainReply | TrainFailure:
        answer = self._session.exchange(request, limits, timeout_s)
        self._recorded.note(answer)
        return answer

    def logs(self, max_bytes: int) -> str:
        log = self._session.logs(max_bytes)
        self._recorded.logs.append(log)
        return log

    def stop(self) -> None:
        self._session.stop()
        self._recorded.ended()


@dataclass
class MapStation:
    """The parts of a station that a map train needs."""

    home: Path
    digest: str
    launcher: Launcher
    cohort: FrozenCohort
    manifest: TrainManifest

    def session(self, *, at_once: int = 2, failed_share: float = 1.0) -> tuple[MapSession, Recorded]:
        recorded = Recorded(TrainSandbox(self.launcher, start_timeout_s=120))
        spec = ContainerSpec(
            run_id="run-map", image_config_digest=self.digest, cohort_dir=str(self.cohort.path),
            control_dir=str(self.home / "compute" / "control" / "run-map"), interface="map",
            memory_bytes=256 * MIB, cpus=1.0, pids=32, scratch_bytes=16 * MIB, wall_clock_s=600,
        )  # fmt: skip
        terms = MapTerms(spec, self.manifest, by_own_names(self.cohort), at_once, failed_share)
        return MapSession(recorded, PatientFolders(self.cohort), terms), recorded

    def ask(
        self, code: str, *, at_once: int = 2, timeout_s: float = 300
    ) -> tuple[MapReply, list[dict[str, Any]]]:
        """Run code in a container per patient; returns what was counted, and what each container answered."""
        session, recorded = self.session(at_once=at_once)
        try:
            reply = session.exchange(
                TrainRequest("analyse", 1, {"code": code}), ReplyLimits(self.home / "reply", 0), timeout_s
            )
        finally:
            session.stop()
        assert isinstance(reply, MapReply), (reply, session.logs())
        assert recorded.most <= at_once
        return reply, recorded.answers


def frozen(cohorts: Path, patients: tuple[str, ...] = PATIENTS) -> FrozenCohort:
    """A cohort by hand: one image per patient, with the patient's name in everything that is theirs."""
    data = cohorts / "one" / "data"
    (data / "images").mkdir(parents=True)
    entries = []
    for number, patient in enumerate(patients):
        image = f"images/case{patient}.nii"
        write_file(data / image, f"image of {patient}".encode())
        entries.append({"image": image, "case": f"case{patient}", "patient": patient, "label": number % 2})
    table = "".join(f"case{patient},{patient},{30 + number}\n" for number, patient in enumerate(patients))
    listed = {
        "name": "thorax-1@1", "modality": {"0": "DX"}, "labels": {"0": "pneumonia=0", "1": "pneumonia=1"},
        "tensorImageSize": "2D", "training": entries, "validation": [], "testing": [],
    }  # fmt: skip
    write_file(data / "datalist.json", canonical_json(listed))
    write_file(data / "clinical.csv", f"case,patient,age_years\n{table}".encode())
    counts = {"training": {"images": 10, "patients": 10}}
    write_file(
        data / "cohort.json", canonical_json({"schema_version": 1, "counts_rounded": counts, "masks": None})
    )
    seal(data)
    none = dict.fromkeys(Split, 0)
    return FrozenCohort(
        data, digest_folder(data), {Split.TRAINING: frozenset(patients)},
        {**none, Split.TRAINING: len(patients)}, {**none, Split.TRAINING: 1}, {},
    )  # fmt: skip


@contextlib.contextmanager
def running_map_station(home: Path, **files: str) -> Iterator[MapStation]:
    """Yield a station with a launcher in this process, a test train per patient in its layer store, and a cohort."""
    build_image(TAG, DOCKERFILE, DESCRIPTION, **{"probe.py": PROBE, **files})
    for name in ("cohorts", "control", "layers"):
        (home / "compute" / name).mkdir(parents=True)
    settings = LauncherSettings(
        station="test-station", compute_uid=0, max_containers=1, max_memory_bytes=512 * MIB, max_cpus=2.0, max_pids=64,
        max_scratch_bytes=32 * MIB,
    )  # fmt: skip
    digest = store_image(TAG, BlobFolder(home / "compute" / "layers"))
    launcher = local_launcher(home, settings)
    try:
        manifest = map_manifest(rows={**MAP_ROWS, "patient_timeout_s": 120})
        yield MapStation(home, digest, launcher, frozen(home / "compute" / "cohorts"), manifest)
    finally:
        launcher.remove_orphans()
        shutil.rmtree(home / "compute" / "layers")


def read(answers: list[dict[str, Any]]) -> list[Any]:
    """What the code of each container left in ``row["found"]``, as JSON text."""
    return [json.loads(answer["found"]) for answer in answers]
