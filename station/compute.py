"""Compute as a process: puts the station's parts together, starts the agent, and serves the operator's API.

Holds pseudonymised data only. Reaches the engine through the launcher's socket, intake through the handover folder, the world
through the agent's outbound connections. Wiring and nothing else: every rule lives in the part it belongs to.
"""

import logging
import shutil
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from policies.bundle import BlobFolder
from policies.documents import canonical_json
from policies.errors import PhtError, RefusedError, SettingsError, UnavailableError
from policies.signing import load_signer
from policies.trust.client import PolicyClient
from policies.wire.http import load_private_key
from policies.wire.registry_client import RegistryClient
from station.admission.gatekeeper import Gatekeeper
from station.agent.announced import AnnouncedConnection
from station.agent.blobs import BlobClient
from station.agent.fleet import FleetConnection
from station.agent.interface import Pace
from station.agent.loop import Agent
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog, system_clock
from station.catalogue.catalogue import Catalogue
from station.catalogue.desk import CatalogueDesk
from station.catalogue.published import PublishedCounts
from station.catalogue.readiness_job import ReadinessJob
from station.cohorts import CohortKey, VolumeCache, sweep
from station.continuity.desk import ContinuityDesk
from station.continuity.drafting import Usage
from station.continuity.messenger import Messenger, Post
from station.continuity.reconciling import Reconciler
from station.continuity.records import Parts, Records
from station.egress.calls import Call, CallLedger
from station.egress.ledger import EgressLedger
from station.egress.releases import ReleaseStore
from station.evidence.collecting import EvidenceCollector
from station.handover import load_public_key
from station.layout import StationPaths
from station.retention import ComputeRetention, ComputeTerms, Places
from station.runs.accesses import AccessDesk
from station.runs.bundles import Bundles
from station.runs.chains import Chains, load_identity
from station.runs.desk import StationDesk
from station.runs.outbox import Outbox
from station.runs.preparation import Preparation
from station.runs.repository import STATION_ACTOR, RunRepository
from station.runs.rounds import TrainRounds
from station.runs.service import RunService
from station.runs.volumes import VolumeKeeper
from station.runs.warm import WarmRuns
from station.sandbox.launcher.client import LauncherClient
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import Launcher
from station.settings import StationSettings, load_settings
from station.storage.database import Database, open_database
from station.watching import Step, watch, watch_policies
from station.web.accesses_api import add_access_routes
from station.web.api import create_api
from station.web.catalogue_api import add_catalogue_routes
from station.web.continuity_api import add_continuity_routes
from station.web.server import read_token, serve_local

log = logging.getLogger("station.compute")

_RECORDS_EVERY_S = 1.0
"""Between two looks at what is due; what is due, the settings say."""
_ENDINGS_EVERY_S = 1.0
"""Between two looks at whether a run that is prepared is over; it asks nobody."""
_FIRST_LOOK_S = 15.0


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters that admission asks for, from the two places that keep them."""

    runs: RunRepository
    releases: ReleaseStore

    def runs_used(self, policy_id: str, *, besides: str | None = None) -> int:
        """Orders that are or were a run of the policy, but `besides`."""
        return self.runs.runs_used(policy_id, besides=besides)

    def releases_used(self, policy_id: str) -> int:
        """Releases made under the policy, ever."""
        return self.releases.releases_used(policy_id)

    def releases_of(self, order_digest: str) -> int:
        """Releases made under the order."""
        return len(self.releases.list(order_digest))


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
    station = _Station.assemble(paths, settings, database, audit, launcher)
    station.warm.recover()
    station.releases.sweep()
    _look_back(station)
    ending = threading.Event()
    _start_watching(station, settings, audit, ending)
    station.agent.start()
    try:
        api = create_api(station.desk, read_token(paths.api_token))
        add_catalogue_routes(api, station.catalogue_desk)
        add_continuity_routes(api, station.continuity)
        add_access_routes(api, AccessDesk(audit))
        serve_local(api, paths.api_socket)
    finally:
        ending.set()
        station.catalogue_desk.readiness_job.stop()
        station.agent.stop()
        station.warm.close()
        station.registry.close()
        audit.thinned.flush(all_of_it=True)
        audit.append(AuditRecord(event=AuditEvent.STATION_STOPPED, actor=STATION_ACTOR))
        database.close()


def _look_back(station: "_Station") -> None:
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


@dataclass(frozen=True, slots=True)
class _Station:
    """The parts that the process itself starts and stops."""

    gatekeeper: Gatekeeper
    catalogue: Catalogue
    warm: WarmRuns
    releases: ReleaseStore
    agent: Agent
    desk: StationDesk
    catalogue_desk: CatalogueDesk
    keeper: VolumeKeeper
    retention: ComputeRetention
    continuity: ContinuityDesk
    registry: RegistryClient

    @classmethod
    def assemble(
        cls,
        paths: StationPaths,
        settings: StationSettings,
        database: Database,
        audit: AuditLog,
        launcher: Launcher,
    ) -> "_Station":
        url = settings.orchestrator.url
        signer = load_signer(paths.identity_key)
        ca = _authority(paths, settings)
        key = load_private_key(paths.node_key)
        proxy = settings.orchestrator.proxy_url
        runs = RunRepository(database, audit)
        ledger = EgressLedger(database)
        releases = ReleaseStore(database, audit, ledger, paths.releases)
        catalogue = Catalogue(database, paths.handover, load_public_key(paths.handover_key), audit)
        blobs = BlobClient(url, ca, key, proxy)
        bundles = Bundles(url, ca, key, blobs, BlobFolder(paths.layers), proxy)
        outbox, calls = Outbox(ledger, audit), CallLedger(ledger)
        parts = Parts(
            settings.name, database, audit, ledger, Usage(runs.runs_started_in, releases.releases_used_in),
            signer, system_clock, timedelta(seconds=settings.statements.unwitnessed_limit_s),
        )  # fmt: skip
        records = Records(parts)
        records.note_settings(canonical_json(settings))
        gatekeeper = Gatekeeper(
            settings,
            PolicyClient(paths.trust, settings.orchestrator.mirror_url, ca=ca, proxy=proxy),
            catalogue,
            Counters(runs, releases),
            bundles,
            system_clock,
            records,
        )
        registry = RegistryClient(url, ca, signer=key, proxy=proxy)
        messenger = Messenger(
            records,
            database,
            Post(
                settings.name,
                registry,
                lambda: gatekeeper.policy_set(fresh=False),
                settings.statements,
                lambda: calls.announce(Call.HEADS),
            ),
        )
        continuity = ContinuityDesk(
            database, records, messenger, Reconciler(records, parts, runs), gatekeeper
        )
        volumes = VolumeCache(paths.volumes, settings.retention.cache_gib << 30)
        volumes.sweep()
        keeper = VolumeKeeper(
            volumes, catalogue, audit, modes=settings.consent_modes,
            keep_for=timedelta(days=settings.retention.cache_days), clock=system_clock,
        )  # fmt: skip
        preparation = Preparation(
            settings, paths, gatekeeper, catalogue, bundles, blobs, launcher, TrainSandbox(launcher),
            CohortKey.load(paths.cohort_key), audit, volumes,
        )  # fmt: skip
        rounds = TrainRounds(settings, gatekeeper, catalogue, runs, releases, ledger, audit, blobs, outbox)
        warm = WarmRuns(gatekeeper, runs, preparation, audit)
        service = RunService(gatekeeper, runs, warm, rounds, outbox, audit, settings.ceilings.runs_at_once)
        pace = Pace(idle_s=settings.polling.idle_s, slow_s=max(settings.polling.active_s, 0.1))
        connection = AnnouncedConnection(FleetConnection(url, ca, paths.node_key, proxy), calls)
        agent = Agent(connection, service, paths.agent, pace)
        chains = Chains(settings.name, database, load_identity(paths.identity_key), system_clock, paths.work)
        desk = StationDesk(
            settings, gatekeeper, catalogue, runs, warm, releases, audit, chains, launcher, agent,
            EvidenceCollector(settings.name, database, chains.identity, paths.trust),
        )  # fmt: skip
        counts = PublishedCounts(
            database, settings.counts, [offered.name for offered in settings.collections]
        )
        catalogue_desk = CatalogueDesk(
            settings, database, counts, desk.take_up, launcher, ledger, audit, signer,
            ReadinessJob(database, paths.handover, system_clock), system_clock,
        )  # fmt: skip
        terms = settings.retention
        retention = ComputeRetention(
            database,
            audit,
            Places(paths.cohorts, paths.releases, paths.compute / "backups"),
            ComputeTerms(
                cohorts=timedelta(days=terms.cohorts_days),
                released=timedelta(days=terms.released_days),
                backups=timedelta(days=terms.backups_days),
            ),
            warm.cohorts,
            system_clock,
        )
        return cls(
            gatekeeper,
            catalogue,
            warm,
            releases,
            agent,
            desk,
            catalogue_desk,
            keeper,
            retention,
            continuity,
            registry,
        )


def _authority(paths: StationPaths, settings: StationSettings) -> Path:
    if settings.orchestrator.ca_file is None:
        raise SettingsError(
            "orchestrator.ca_file is not set",
            hint="Name the PEM file of the authority to trust for the orchestrator.",
        )
    ca = settings.path(paths.home, settings.orchestrator.ca_file)
    if not ca.is_file():
        raise SettingsError(f"orchestrator.ca_file: there is no {ca.name} in the station's folder")
    return ca


def _start_watching(
    station: _Station, settings: StationSettings, audit: AuditLog, stop: threading.Event
) -> None:
    """Look after what changes between messages and in the middle of one.

    - What intake hands over is taken up, runs whose patients withdrew are ended, their cached volumes removed.
    - The policy repository is asked again.
    - Runs whose policy or order is over by what is known are ended; this waits for no answer of the repository.
    - The station's records are stated, and held against what was countersigned of them.
    """
    warm, gatekeeper = station.warm, station.gatekeeper
    consent: tuple[Step, ...] = (
        station.catalogue.sync,
        lambda: warm.withdraw(gatekeeper.consenting),
        station.keeper.look,
        station.retention.look,
    )
    endings: tuple[Step, ...] = (lambda: warm.revoke(gatekeeper.no_longer_in_force),)
    watch("consent", consent, settings.polling.handover_s, stop)
    watch("endings", endings, min(_ENDINGS_EVERY_S, settings.polling.handover_s), stop)
    watch_policies(gatekeeper, settings.polling.handover_s, stop)
    watch("records", (station.continuity.messenger.look, audit.thinned.flush), _RECORDS_EVERY_S, stop)
