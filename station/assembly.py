"""Compute's parts, put together: which part is made of which. Wiring and nothing else: every rule lives in its part."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from policies.documents import canonical_json
from policies.errors import SettingsError
from policies.signing import Signer, load_signer
from policies.trust.client import PolicyClient
from policies.wire.http import load_private_key
from policies.wire.proxies import Proxy
from policies.wire.registry_client import RegistryClient
from station.admission.gatekeeper import Gatekeeper
from station.admission.gpus import LeasableGpus
from station.agent.announced import AnnouncedConnection
from station.agent.blobs import BlobClient
from station.agent.fleet import FleetConnection
from station.agent.interface import Pace
from station.agent.loop import Agent
from station.audit.log import AuditLog, system_clock
from station.catalogue.catalogue import Catalogue
from station.catalogue.desk import CatalogueDesk
from station.catalogue.published import PublishedCounts
from station.catalogue.readiness_job import ReadinessJob
from station.cohorts import CohortKey, VolumeCache
from station.continuity.desk import ContinuityDesk
from station.continuity.drafting import Usage
from station.continuity.messenger import Messenger, Post
from station.continuity.reconciling import Reconciler
from station.continuity.records import Parts, Records
from station.egress.differencing.differences import Differences
from station.egress.privacy.ledger import PrivacyLedger
from station.egress.records.calls import Call, CallLedger
from station.egress.records.ledger import EgressLedger
from station.egress.records.releases import ReleaseStore
from station.egress.records.repeats import Repeats
from station.egress.review.queue import ReviewQueue
from station.evidence.collecting import EvidenceCollector
from station.handover import load_public_key
from station.images.desk import ImagesDesk
from station.images.making import make_registry, make_store
from station.images.orchestrator import OrchestratorBundles
from station.images.room import MIB
from station.images.sources import ImageSource
from station.images.store import LayerStore
from station.layout import StationPaths
from station.predictions.book import PredictionBook
from station.predictions.folder import PredictionFolder, require_apart
from station.predictions.keeper import PredictionKeeper
from station.retention import ComputeRetention, ComputeTerms, Places
from station.runs.canary import Canary
from station.runs.chains import Chains, load_identity
from station.runs.charging import Charging, privacy_ledger
from station.runs.clock import RunClock
from station.runs.containers import RunContainers
from station.runs.counters import Counters
from station.runs.desk import StationDesk
from station.runs.differing import Differing
from station.runs.failing import Failing
from station.runs.mirror import MirrorReports
from station.runs.moments import Moments
from station.runs.needed_images import NeededImages
from station.runs.outbox import Outbox
from station.runs.predicting import Predicting
from station.runs.preparation import Preparation
from station.runs.releasing import Releasing
from station.runs.repository import RunRepository
from station.runs.reviewing import Reviewing
from station.runs.rounds import TrainRounds
from station.runs.service import RunService
from station.runs.volumes import VolumeKeeper
from station.runs.warm import WarmRuns
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import Launcher
from station.settings import StationSettings
from station.storage.database import Database


@dataclass(frozen=True, slots=True)
class Station:
    """The parts that the process itself starts, asks and stops."""

    gatekeeper: Gatekeeper
    catalogue: Catalogue
    warm: WarmRuns
    clock: RunClock
    releases: ReleaseStore
    agent: Agent
    desk: StationDesk
    catalogue_desk: CatalogueDesk
    keeper: VolumeKeeper
    predictions: PredictionKeeper | None
    images: ImagesDesk
    retention: ComputeRetention
    continuity: ContinuityDesk
    reviewing: Reviewing
    registry: RegistryClient
    repeats: Repeats
    mirror_reports: MirrorReports


@dataclass(frozen=True, slots=True)
class _Home:
    """What is there before any part: the folder, its settings, the open database, the launcher."""

    paths: StationPaths
    settings: StationSettings
    database: Database
    audit: AuditLog
    launcher: Launcher
    proxy: Proxy | None


@dataclass(frozen=True, slots=True)
class _Books:
    """What the station keeps of runs, of data and of what left."""

    runs: RunRepository
    ledger: EgressLedger
    releases: ReleaseStore
    privacy: PrivacyLedger
    catalogue: Catalogue
    outbox: Outbox
    calls: CallLedger
    needed: NeededImages


@dataclass(frozen=True, slots=True)
class _Lines:
    """The ways out: to the orchestrator and to the mirror."""

    blobs: BlobClient
    images: LayerStore
    policies: PolicyClient
    registry: RegistryClient
    new_registry: Callable[[], RegistryClient]
    fleet: FleetConnection


@dataclass(frozen=True, slots=True)
class _Trains:
    """What runs trains."""

    keeper: VolumeKeeper
    predictions: PredictionKeeper | None
    warm: WarmRuns
    clock: RunClock
    agent: Agent


def assemble(
    paths: StationPaths,
    settings: StationSettings,
    database: Database,
    audit: AuditLog,
    launcher: Launcher,
) -> Station:
    """Put a station together; nothing of it is started.

    Raises:
        SettingsError, StateError, StorageError, TrustError: what is on disk does not let it start.
    """
    home = _Home(paths, settings, database, audit, launcher, _proxy(paths, settings))
    books = _books(home)
    lines = _lines(home, books)
    signer = load_signer(paths.identity_key)
    gatekeeper, continuity = _gate(home, books, lines, signer)
    books.needed.policies = lambda: gatekeeper.policy_set(fresh=False)
    reviewing = _reviewing(home, books, gatekeeper)
    trains = _trains(home, books, lines, gatekeeper, reviewing)
    chains = Chains(settings.name, database, load_identity(paths.identity_key), system_clock, paths.work)
    desk = StationDesk(
        settings, gatekeeper, books.catalogue, books.runs, trains.warm, books.releases, audit, chains, launcher,
        trains.agent, EvidenceCollector(settings.name, database, chains.identity, paths.trust),
    )  # fmt: skip
    counts = PublishedCounts(database, settings.counts, [offered.name for offered in settings.collections])
    catalogue_desk = CatalogueDesk(
        settings, database, counts, desk.take_up, launcher, books.ledger, audit, signer,
        ReadinessJob(database, paths.handover, system_clock), system_clock,
    )  # fmt: skip
    return Station(
        gatekeeper=gatekeeper,
        catalogue=books.catalogue,
        warm=trains.warm,
        clock=trains.clock,
        releases=books.releases,
        agent=trains.agent,
        desk=desk,
        catalogue_desk=catalogue_desk,
        keeper=trains.keeper,
        predictions=trains.predictions,
        images=ImagesDesk(lines.images, books.needed, settings.images.quota_mib * MIB, system_clock),
        retention=_retention(home, trains.warm),
        continuity=continuity,
        reviewing=reviewing,
        registry=lines.registry,
        repeats=books.outbox.repeats,
        mirror_reports=MirrorReports(settings.name, lines.new_registry, books.calls.announce),
    )


def _books(home: _Home) -> _Books:
    database, audit, paths = home.database, home.audit, home.paths
    ledger = EgressLedger(database)
    runs = RunRepository(database, audit)
    return _Books(
        runs=runs,
        ledger=ledger,
        releases=ReleaseStore(database, audit, ledger, paths.releases),
        privacy=privacy_ledger(home.settings, database, audit),
        catalogue=Catalogue(database, paths.handover, load_public_key(paths.handover_key), audit),
        outbox=Outbox(ledger, audit),
        calls=CallLedger(ledger),
        needed=NeededImages(runs, system_clock),
    )


def _lines(home: _Home, books: _Books) -> _Lines:
    paths, orchestrator = home.paths, home.settings.orchestrator
    url, proxy = orchestrator.url, home.proxy
    ca = _authority(paths, home.settings)
    key = load_private_key(paths.node_key)
    blobs = BlobClient(url, ca, key, proxy)
    new_registry = partial(RegistryClient, url, ca, signer=key, proxy=proxy)
    return _Lines(
        blobs=blobs,
        images=_images(home, books, OrchestratorBundles(url, ca, key, blobs, paths.work, proxy)),
        policies=PolicyClient(paths.trust, orchestrator.mirror_url, ca=ca, proxy=proxy),
        registry=new_registry(),
        new_registry=new_registry,
        fleet=FleetConnection(url, ca, paths.node_key, proxy),
    )


def _images(home: _Home, books: _Books, bundles: OrchestratorBundles) -> LayerStore:
    paths, settings, proxy = home.paths, home.settings.images, home.proxy
    sources: list[ImageSource] = []
    for name in settings.sources:
        if name == "orchestrator":
            sources.append(bundles)
        else:
            announce = partial(books.calls.announce, Call.REGISTRY)
            sources.append(make_registry(settings, paths.home, proxy=proxy, announce=announce))
    return make_store(
        paths.layers, settings, sources, needs=books.needed, engine=home.launcher, audit=home.audit, clock=system_clock
    )  # fmt: skip


def _gate(home: _Home, books: _Books, lines: _Lines, signer: Signer) -> tuple[Gatekeeper, ContinuityDesk]:
    """Admission, and the records without whose confirmation it permits nothing."""
    settings, database = home.settings, home.database
    parts = Parts(
        settings.name, database, home.audit, books.ledger,
        Usage(books.runs.runs_started_in, books.releases.releases_used_in), signer, system_clock,
        timedelta(seconds=settings.statements.unwitnessed_limit_s),
    )  # fmt: skip
    records = Records(parts)
    records.note_settings(canonical_json(settings))
    gatekeeper = Gatekeeper(
        settings, lines.policies, books.catalogue, Counters(books.runs, books.releases), lines.images, system_clock,
        records, LeasableGpus(settings, home.launcher), books.privacy,
    )  # fmt: skip
    post = Post(
        settings.name,
        lines.registry,
        lambda: gatekeeper.policy_set(fresh=False),
        settings.statements,
        lambda: books.calls.announce(Call.HEADS),
    )
    messenger = Messenger(records, database, post)
    reconciler = Reconciler(records, parts, books.runs)
    return gatekeeper, ContinuityDesk(database, records, messenger, reconciler, gatekeeper)


def _reviewing(home: _Home, books: _Books, gatekeeper: Gatekeeper) -> Reviewing:
    queue = ReviewQueue(home.database, home.audit, home.paths.reviews)
    differing = Differing(_differences(home))
    return Reviewing(
        home.settings,
        gatekeeper,
        books.catalogue,
        books.runs,
        books.releases,
        differing,
        queue,
        home.paths.work,
    )


def _trains(
    home: _Home, books: _Books, lines: _Lines, gatekeeper: Gatekeeper, reviewing: Reviewing
) -> _Trains:
    paths, settings, audit, launcher = home.paths, home.settings, home.audit, home.launcher
    volumes = VolumeCache(paths.volumes, settings.retention.cache_gib << 30)
    volumes.sweep()
    keeper = VolumeKeeper(
        volumes, books.catalogue, audit, modes=settings.consent_modes,
        keep_for=timedelta(days=settings.retention.cache_days), clock=system_clock,
    )  # fmt: skip
    clock, moments = RunClock(home.database), Moments()
    cohort_key = CohortKey.load(paths.cohort_key)
    containers = RunContainers(settings, paths, TrainSandbox(launcher), audit, clock, system_clock, moments)
    preparation = Preparation(
        settings, paths, gatekeeper, books.catalogue, lines.images, lines.blobs, launcher, containers, cohort_key, audit, volumes,
    )  # fmt: skip
    releasing = Releasing(
        gatekeeper,
        books.catalogue,
        books.runs,
        books.releases,
        reviewing.differing,
        reviewing,
        Charging(books.privacy),
    )
    failing = Failing(books.runs, audit, books.outbox, settings.hospital.failed_messages)
    rounds = TrainRounds(
        settings, gatekeeper, books.runs, books.releases, audit, lines.blobs, books.outbox, failing, clock,
        releasing, Canary(containers, cohort_key), moments=moments,
    )  # fmt: skip
    book = PredictionBook(home.database, audit)
    folder = _prediction_folder(home)
    predicting = Predicting(containers, gatekeeper, books.catalogue, cohort_key, book, folder)
    predictions = None if folder is None else PredictionKeeper(
        book, folder, books.catalogue, modes=settings.consent_modes,
        keep_for=timedelta(days=settings.predictions.keep_days), clock=system_clock,
    )  # fmt: skip
    warm = WarmRuns(gatekeeper, books.runs, preparation, audit, predicting)
    service = RunService(
        gatekeeper, books.runs, warm, rounds, failing, books.outbox, audit, settings.ceilings.runs_at_once
    )
    pace = Pace(idle_s=settings.polling.idle_s, slow_s=max(settings.polling.active_s, 0.1))
    connection = AnnouncedConnection(lines.fleet, books.calls)
    return _Trains(
        keeper, predictions, warm, clock, Agent(connection, service, paths.agent, pace, moments.stop)
    )


def _prediction_folder(home: _Home) -> PredictionFolder | None:
    chosen = home.settings.predictions.folder
    if chosen is None:
        return None
    require_apart(Path(chosen), home.paths.home)
    return PredictionFolder(Path(chosen))


def _differences(home: _Home) -> Differences:
    return Differences(home.database, system_clock, everyone=home.settings.egress.compare == "everyone")


def _retention(home: _Home, warm: WarmRuns) -> ComputeRetention:
    paths, terms, egress = home.paths, home.settings.retention, home.settings.egress
    return ComputeRetention(
        home.database,
        home.audit,
        Places(paths.cohorts, paths.releases, paths.compute / "backups"),
        ComputeTerms(
            cohorts=timedelta(days=terms.cohorts_days),
            released=timedelta(days=egress.keep_days),
            backups=timedelta(days=terms.backups_days),
            differences=None
            if egress.differences_years is None
            else timedelta(days=366 * egress.differences_years),
        ),
        warm.cohorts,
        system_clock,
        _differences(home),
    )


def _proxy(paths: StationPaths, settings: StationSettings) -> Proxy | None:
    asked = settings.orchestrator
    if asked.proxy_url is None:
        return None
    credentials, ca = (
        None if name is None else settings.path(paths.home, name)
        for name in (asked.proxy_credentials_file, asked.proxy_ca_file)
    )
    return Proxy.read(asked.proxy_url, credentials, ca, "orchestrator.proxy_credentials_file")


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
