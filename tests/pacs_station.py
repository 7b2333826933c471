"""An intake with a DICOM network, as a process and in this one, for the tests of its sources."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
from pacs_kit import DEADLINE_S, Certificates, wait_until
from pseudonym_files import file_bytes, identified

from station.handover import InstancesContent, load_public_key, read_handover, read_instance
from station.intake.installation import init_intake
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeSettings
from station.intake.sources.desk import DicomNetwork, PacsDesk
from station.intake.sources.reception import Expectation, Route
from station.intake.sources.rejections import Rejection
from station.intake.spool import SourceKind, StagedBatch
from station.settings.dicom import PacsSettings, ReceiverSettings
from station.supervisor import answers

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "cxr"
STATION_AET, MOVE_AET, FEED_AET, MODALITY_AET = "PHT-STATION", "PHT-MOVE", "PHT-CXR", "BUCKY-1"
_SERVE = """
import sys
from pathlib import Path
from station.logs import log_as_json_lines
log_as_json_lines()
from station.intake.service import serve
from station.intake.settings import IntakeSettings
from station.intake.sources.desk import DicomNetwork
from station.settings.dicom import PacsSettings, ReceiverSettings
home, receiver, *pacs = sys.argv[1:]
settings = IntakeSettings(collections=("cxr",), workers=1)
network = DicomNetwork(
    sop_classes=settings.sop_classes,
    receiver=ReceiverSettings.model_validate_json(receiver),
    pacs=tuple(PacsSettings.model_validate_json(one) for one in pacs),
    collections=("cxr",),
)
serve(Path(home), settings, network)
"""


def radiograph(number: int, **elements: Any) -> bytes:
    """One radiograph of patient `number`, in a study and series of its own unless told."""
    chosen: dict[str, Any] = {
        "SOPInstanceUID": f"1.2.826.0.1.7.{number}.1",
        "StudyInstanceUID": f"1.2.826.0.1.7.{number}.2",
        "SeriesInstanceUID": f"1.2.826.0.1.7.{number}.3",
        "AccessionNumber": f"ACC{number:05d}",
        "PatientID": f"{3_700_000 + number}",
    }
    return file_bytes(identified(**{**chosen, **elements}))


def study(number: int, images: int) -> list[bytes]:
    """A study of several radiographs in one series."""
    return [radiograph(number, SOPInstanceUID=f"1.2.826.0.1.7.{number}.1.{image}") for image in range(images)]


def write_files(folder: Path, data: Sequence[bytes]) -> list[Path]:
    """Write files to send."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.dcm" for number in range(len(data))]
    for path, one in zip(paths, data, strict=True):
        path.write_bytes(one)
    return paths


def receiver_settings(port: int, tls: Certificates | None = None, **changes: Any) -> ReceiverSettings:
    """A receiver on loopback with one feed."""
    settings: dict[str, Any] = {
        "enabled": True,
        "port": port,
        "feeds": ((MODALITY_AET, FEED_AET, COLLECTION),),
        "tls": "none" if tls is None else "mutual",
        "timeout_s": 20,
    }
    if tls is not None:
        settings |= {
            "tls_ca_file": str(tls.authority),
            "tls_certificate_file": str(tls.certificate),
            "tls_key_file": str(tls.key),
        }
    return ReceiverSettings(**{**settings, **changes})


IN_THE_MIDDLE = 600
"""Studies per minute at which a retrieval of some dozens is still under way when what saw its first ones acts on that."""


def pacs_settings(port: int, tls: Certificates | None = None, **changes: Any) -> PacsSettings:
    """The PACS of `pacs_kit`, without the manners that would make a test wait."""
    settings: dict[str, Any] = {
        "name": "main",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": "ORTHANC",
        "calling_ae_title": STATION_AET,
        "move_ae_title": MOVE_AET,
        "tls": "none" if tls is None else "mutual",
        "studies_per_minute": 100_000,
        "instances_per_minute": 1_000_000,
        "backoff_s": 0.2,
        "backoff_longest_s": 0.5,
        "timeout_s": 20,
    }
    if tls is not None:
        settings |= {
            "tls_ca_file": str(tls.authority),
            "tls_certificate_file": str(tls.certificate),
            "tls_key_file": str(tls.key),
        }
    return PacsSettings(**{**settings, **changes})


class IntakeProcess:
    """Intake's service as a process of its own, to be killed and started again."""

    def __init__(self, home: Path, receiver: ReceiverSettings, *pacs: PacsSettings) -> None:
        self.paths = init_intake(home) if not (home / "intake").exists() else IntakePaths(home)
        self.log = home.with_suffix(".log")
        self._arguments = [receiver.model_dump_json(), *(one.model_dump_json() for one in pacs)]
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.paths.socket.unlink(missing_ok=True)
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.paths.socket)),
            base_url="http://intake", timeout=60, headers={"Authorization": f"Bearer {self.paths.token.read_text()}"},
        )  # fmt: skip
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(self.paths.home), *self._arguments],
                cwd=ROOT, stdout=output, stderr=output,
            )  # fmt: skip
        wait_until(self._listens, "intake")

    def kill(self) -> None:
        """Pull the plug."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it in good order; returns its exit code."""
        self._end(signal.SIGTERM)
        return self.process.returncode

    def get(self, path: str) -> Any:
        """GET of its API."""
        return self.client.get(path).raise_for_status().json()

    def post(self, path: str, body: object) -> httpx.Response:
        """POST to its API."""
        return self.client.post(path, json=body)

    def instances(self) -> int:
        """How many it holds."""
        count: int = self.get("/v1/status")["instances"]
        return count

    def retrieve(self, accessions: Sequence[str]) -> dict[str, Any]:
        """Begin to retrieve a list."""
        answer = self.client.post(
            "/v1/pacs/main/accessions", content="\n".join(accessions), params={"collection": COLLECTION}
        )
        report: dict[str, Any] = answer.raise_for_status().json()
        return report

    def retrieval(self, job: str) -> dict[str, Any]:
        """How far a retrieval is."""
        report: dict[str, Any] = self.get(f"/v1/retrievals/{job}")
        return report

    def finished(self, job: str) -> dict[str, Any]:
        """Wait until a retrieval is over."""
        wait_until(lambda: self.retrieval(job)["state"] != "running", "the retrieval")
        return self.retrieval(job)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return answers(self.paths.socket)

    def _end(self, number: int) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(DEADLINE_S)


def handed_over(paths: IntakePaths) -> list[str]:
    """The pseudonymous SOP Instance UIDs in the handover, each as often as it is there."""
    public_key = load_public_key(paths.handover_public_key)
    found: list[str] = []
    for entry in read_handover(paths.handover, public_key):
        if isinstance(entry.content, InstancesContent):
            for record in entry.content.instances:
                assert read_instance(paths.handover, record)
                found.append(record.sop_instance_uid)
    return found


@dataclass
class Shelf:
    """A sink and routes for a receiver without an intake behind it."""

    batches: list[StagedBatch] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    expectation: Expectation | None = None

    def route(self, calling: str, called: str) -> Route | None:
        """One feed."""
        known = (calling, called) == (MODALITY_AET, FEED_AET)
        return Route(COLLECTION, SourceKind.C_STORE, self.expectation) if known else None

    def knows(self, calling: str) -> bool:
        """One sender."""
        return calling == MODALITY_AET

    def received(self, batch: StagedBatch) -> None:
        """Remember it."""
        self.batches.append(batch)

    def rejected(self, rejection: Rejection) -> None:
        """Remember it."""
        self.rejections.append(rejection)

    @property
    def files(self) -> int:
        """How many files were passed on."""
        return sum(batch.card.files for batch in self.batches)


@dataclass
class DeskKit:
    """A desk over an intake in this process; batches are processed by `process`."""

    paths: IntakePaths
    intake: Intake
    desk: PacsDesk
    accepted: list[str] = field(default_factory=list)

    def process(self) -> None:
        """Process what was accepted."""
        while self.accepted:
            self.intake.process_batch(self.accepted.pop(0))

    def finished(self, job: str) -> Any:
        """Wait until a retrieval is over."""
        wait_until(lambda: self.desk.retrieval(job).state.value != "running", "the retrieval")
        return self.desk.retrieval(job)


@contextmanager
def desk_kit(home: Path, receiver: ReceiverSettings, *pacs: PacsSettings) -> Iterator[DeskKit]:
    """Start a desk."""
    paths = init_intake(home) if not (home / "intake").exists() else IntakePaths(home)
    settings = IntakeSettings(collections=(COLLECTION,), workers=1)
    with Intake(paths, settings) as intake:
        network = DicomNetwork(settings.sop_classes, receiver, pacs, UTC, (COLLECTION,))
        kit = DeskKit(paths, intake, PacsDesk(intake, paths, network))
        intake.when_accepted(kit.accepted.append)
        kit.desk.start()
        try:
            yield kit
        finally:
            kit.desk.stop()


def log_says_nothing_of(log: Path, *values: str) -> None:
    """No identified value stands in a log, and it holds JSON lines only."""
    text = log.read_text()
    assert not [value for value in values if value in text]
    assert os.linesep in text
