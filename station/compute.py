"""Compute as a process: has the station's parts put together, starts the agent, and serves the operator's API.

Holds pseudonymised data only. Reaches the engine through the launcher's socket, intake through the handover folder, the world
through the agent's outbound connections.
"""

import logging
import shutil
import threading
from datetime import timedelta
from pathlib import Path

from policies.errors import PhtError, RefusedError, StorageError, UnavailableError
from station.assembly import Station, assemble
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.cohorts import sweep
from station.egress.privacy.spending import SpendingDesk
from station.layout import StationPaths
from station.predictions.book import PredictionBook
from station.predictions.desk import PredictionsDesk
from station.runs.accesses import AccessDesk
from station.runs.repository import STATION_ACTOR
from station.runs.review_desk import ReviewDesk
from station.sandbox.launcher.client import LauncherClient
from station.sandbox.spec import Launcher
from station.selftest.recording import SelftestDesk
from station.settings import StationSettings, load_settings
from station.storage.database import open_database
from station.watching import Step, watch, watch_policies
from station.web.accesses_api import add_access_routes
from station.web.api import create_api
from station.web.catalogue_api import add_catalogue_routes
from station.web.continuity_api import add_continuity_routes
from station.web.gpus_api import add_gpu_routes
from station.web.images_api import add_image_routes
from station.web.mirror_api import add_mirror_routes
from station.web.predictions_api import add_prediction_routes
from station.web.privacy_api import add_privacy_routes
from station.web.reviews_api import add_review_routes
from station.web.selftest_api import add_selftest_routes
from station.web.server import read_token, serve_local

log = logging.getLogger("station.compute")

_RECORDS_EVERY_S = 1.0
"""Between two looks at what is due; what is due, the settings say."""

_IDLE_EVERY_S = 5.0
"""Between two looks at whether a GPU is held by a train that nobody asks anything."""
_ENDINGS_EVERY_S = 1.0
"""Between two looks at whether a run that is prepared is over; it asks nobody."""

_REVIEWS_EVERY_S = 5.0
"""Between two looks at whether what waits for a person waited too long, or may not leave any more."""

_IMAGES_EVERY_S = 60.0
"""Between two looks at whether it is time to look at the images."""

_FIRST_LOOK_S = 15.0


def serve(home: Path) -> None:
    """Run compute until SIGTERM or SIGINT.

    Raises:
        SettingsError, StateError, StorageError: what is on disk does not let it start.
    """
    paths = StationPaths(home)
    settings = load_settings(home)
    database = open_database(paths.database)
    audit = AuditLog(database)
    audit.append(AuditRecord(event=AuditEvent.STATION_STARTED, actor=STATION_ACTOR))
    launcher = LauncherClient(paths.launcher_socket)
    _end_containers(launcher)
    _clear(paths)
    station = assemble(paths, settings, database, audit, launcher)
    station.warm.recover()
    station.releases.sweep()
    station.reviewing.queue.files.sweep()
    _recover_predictions(station)
    _look_back(station)
    ending = threading.Event()
    _start_watching(station, settings, audit, ending)
    station.agent.start()
    try:
        api = create_api(station.desk, read_token(paths.api_token))
        add_catalogue_routes(api, station.catalogue_desk)
        add_continuity_routes(api, station.continuity)
        add_access_routes(api, AccessDesk(audit))
        add_selftest_routes(api, SelftestDesk(audit))
        add_gpu_routes(api, launcher)
        add_image_routes(api, station.images)
        add_review_routes(api, ReviewDesk(station.reviewing, station.releases, audit))
        add_mirror_routes(api, station.mirror_reports)
        add_prediction_routes(
            api, PredictionsDesk(PredictionBook(database, audit), settings.predictions.folder)
        )
        add_privacy_routes(api, SpendingDesk(database, settings.privacy.epsilon, settings.privacy.delta))
        serve_local(api, paths.api_socket)
    finally:
        ending.set()
        station.catalogue_desk.readiness_job.stop()
        station.agent.stop()
        station.warm.close()
        station.registry.close()
        audit.thinned.flush(all_of_it=True)
        station.repeats.flush()
        audit.append(AuditRecord(event=AuditEvent.STATION_STOPPED, actor=STATION_ACTOR))
        database.close()


def _recover_predictions(station: Station) -> None:
    """Bring the hospital's folder in line with the record; where it is not there the station works all the same."""
    if station.predictions is None:
        return
    try:
        lost = station.predictions.recover()
    except StorageError as error:
        log.warning("predictions.folder", extra={"reason": error.message})
        return
    if lost:
        log.warning("predictions.lost", extra={"count": lost})


def _look_back(station: Station) -> None:
    """Before anything can be asked of the station: are these the newest records there were?

    Not for long: an orchestrator that keeps us waiting must not keep the operator out. The look goes on beside the start.
    """

    def look() -> None:
        try:
            station.continuity.messenger.look()
        except PhtError as error:
            log.error("records.not_looked_at", extra={"reason": type(error).__name__})  # noqa: TRY400 - no text of others

    thread = threading.Thread(target=look, name="first-look", daemon=True)
    thread.start()
    thread.join(_FIRST_LOOK_S)


def _end_containers(launcher: Launcher) -> None:
    """Remove the containers of an earlier life of compute: the launcher may have lived on.

    Where it does not answer it is starting too, and removes them before it starts any.
    """
    try:
        removed = launcher.remove_orphans()
    except (RefusedError, UnavailableError):
        log.warning("containers.not_asked")
        return
    if removed:
        log.warning("containers.removed", extra={"count": removed})


def _clear(paths: StationPaths) -> None:
    """Remove what an earlier life had in hand."""
    wiped = sweep(paths.cohorts, ())
    for folder in (paths.work, paths.control):
        for entry in folder.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
    if wiped:
        log.info("cohorts.swept", extra={"count": wiped})


def _start_watching(
    station: Station, settings: StationSettings, audit: AuditLog, stop: threading.Event
) -> None:
    """Look after what changes between messages and in the middle of one.

    - What intake hands over is taken up, runs whose patients withdrew are ended, their cached volumes removed.
    - The policy repository is asked again.
    - Runs whose policy or order is over by what is known are ended; this waits for no answer of the repository.
    - Trains that hold a GPU and are asked nothing give it back.
    - What waits for a person is withheld when its time is over, and wiped where it may not leave any more.
    - Images that nothing needs go when their time is over.
    - The station's records are stated, and held against what was countersigned of them.
    """
    warm, gatekeeper = station.warm, station.gatekeeper
    consent: tuple[Step, ...] = (
        station.catalogue.sync,
        lambda: warm.withdraw(gatekeeper.consenting),
        station.keeper.look,
        *(() if station.predictions is None else (station.predictions.look,)),
        station.retention.look,
        station.clock.beat,
    )
    idle = timedelta(seconds=settings.gpu.idle_s)
    endings: tuple[Step, ...] = (lambda: warm.revoke(gatekeeper.no_longer_in_force),)
    watch("consent", consent, settings.polling.handover_s, stop)
    watch("endings", endings, min(_ENDINGS_EVERY_S, settings.polling.handover_s), stop)
    watch("idle", (lambda: warm.end_idle(idle),), _IDLE_EVERY_S, stop)
    watch_policies(gatekeeper, settings.polling.handover_s, stop)
    watch("reviews", (station.reviewing.look,), min(_REVIEWS_EVERY_S, settings.polling.handover_s), stop)
    watch("images", (station.images.look,), _IMAGES_EVERY_S, stop)
    watch("records", (station.continuity.messenger.look, audit.thinned.flush), _RECORDS_EVERY_S, stop)
