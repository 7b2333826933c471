"""Intake as a process: finishes what an earlier one left, then serves its API until SIGTERM.

Invariant: killed at any point, the next start finishes the spool; nothing is handed over twice.
"""

import logging
import queue
import threading
import warnings
from datetime import timedelta
from pathlib import Path

from policies.errors import PhtError
from station.intake.api import create_api
from station.intake.api.pacs import pacs_routes
from station.intake.consent.review import ConsentReview
from station.intake.consent.rules import ConsentRules
from station.intake.intake import Intake
from station.intake.paths import IntakePaths
from station.intake.settings import IntakeRetention, IntakeSettings
from station.intake.sources.desk import DicomNetwork, PacsDesk
from station.intake.upkeep import Upkeep
from station.pseudonymisation.options import options_of
from station.pseudonymisation.pixels.settings import PixelSettings
from station.web.server import read_token, serve_local

LOG = logging.getLogger("station.intake")

RETRY_PAUSE_S = 30.0
_STOP = ""


class _StoppingError(Exception):
    """Raised between two files when the process is to end."""


class _Worker:
    """Processes accepted batches, one after another, on a thread of its own."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._names: queue.Queue[str] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake-worker")

    def start(self) -> None:
        self._thread.start()

    def add(self, name: str) -> None:
        self._names.put(name)

    def stop(self) -> None:
        self._stop.set()
        self._names.put(_STOP)
        self._thread.join()

    def _run(self) -> None:
        while True:
            name = self._names.get()
            if self._stop.is_set():
                return
            try:
                report = self._intake.process_batch(name, self._progress)
            except _StoppingError:
                return
            except PhtError as error:
                # A full disk above all: the batch waits, and is tried again.
                LOG.error("intake-batch-failed", extra={"batch": name, "code": type(error).__name__})  # noqa: TRY400
                self._stop.wait(RETRY_PAUSE_S)
                self._names.put(name)
            else:
                LOG.info("intake-batch-finished", extra={"batch": name, "count": report.accepted})

    def _progress(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise _StoppingError


def serve(home: Path, settings: IntakeSettings | None = None, network: DicomNetwork | None = None) -> None:
    """Run intake until SIGTERM or SIGINT.

    Args:
        home: the station's home.
        settings: intake's settings; the defaults, with the collections of station.toml, unless told.
        network: the DICOM network; that of station.toml unless told, and none where only `settings` are.

    Raises:
        StateError: another process works on this intake, or its keys or database are damaged.
        UnavailableError: the socket cannot be made.
    """
    paths = IntakePaths(home)
    # pydicom's warnings quote values; nothing of this process may.
    warnings.simplefilter("ignore")
    token = read_token(paths.token)
    if settings is None:
        settings, network = _from_station(home), network or _network_of(home)
    with Intake(paths, settings) as intake:
        worker = _Worker(intake)
        for name in intake.recover():
            worker.add(name)
        worker.start()
        intake.when_accepted(worker.add)
        review = ConsentReview(intake.consent)
        review.start()
        upkeep = Upkeep(intake, worker.add, settings.look_every_s)
        upkeep.start()
        desk = PacsDesk(intake, paths, network or DicomNetwork(sop_classes=settings.sop_classes))
        api = create_api(intake, token, worker.add)
        pacs_routes(api, desk)
        try:
            desk.start()
            serve_local(api, paths.socket)
        finally:
            desk.stop()
            review.stop()
            upkeep.stop()
            worker.stop()


def _network_of(home: Path) -> DicomNetwork:
    from station.settings import load_settings  # noqa: PLC0415 - as below
    from station.settings.sections import time_zone  # noqa: PLC0415

    settings = load_settings(home)
    return DicomNetwork(
        receiver=settings.receiver,
        pacs=settings.pacs,
        zone=time_zone(settings.hospital.timezone),
        sop_classes=IntakeSettings().sop_classes,
        collections=tuple(collection.name for collection in settings.collections),
    )


def _from_station(home: Path) -> IntakeSettings:
    from station.settings import load_settings  # noqa: PLC0415 - a library caller has no station.toml

    settings = load_settings(home)
    codes = settings.consent.codes_file
    return IntakeSettings(
        project=settings.pseudonyms.project,
        default_issuer=settings.pseudonyms.default_issuer,
        collections=tuple(collection.name for collection in settings.collections),
        body_parts={
            each.name: each.assumed_body_part
            for each in settings.collections
            if each.assumed_body_part is not None
        },
        options={
            each.name: options_of(each.deidentification, each.safe_private) for each in settings.collections
        },
        pixels=PixelSettings.model_validate(settings.pixels.model_dump()),
        workers=settings.processing.workers,
        file_timeout_s=settings.processing.file_timeout_s,
        worker_memory_mib=settings.processing.worker_memory_mib,
        max_file_bytes=settings.processing.max_file_mib << 20,
        retention=IntakeRetention(
            quarantine=timedelta(days=settings.retention.quarantine_days),
            unclaimed=timedelta(days=settings.retention.unclaimed_days),
            removed=timedelta(hours=settings.retention.removed_hours),
            backups=timedelta(days=settings.retention.backups_days),
        ),
        consent=ConsentRules(
            timezone=settings.hospital.timezone,
            registry_asked_apart=settings.consent.registry_asked_apart,
            codes_file=None if codes is None else settings.path(home, codes),
        ),
    )
