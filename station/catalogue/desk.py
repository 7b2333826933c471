"""The operator's use cases on the catalogue: count inside, and write the two documents that tell rounded counts outside.

Both documents are in the egress ledger, durably, before their bytes are returned (invariants I1 and I6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from policies.documents import canonical_json, digest_of, load_yaml
from policies.errors import NotFoundError, RefusedError, UnavailableError
from policies.manifest import TrainManifest
from policies.profiles import Profile, load_profile
from policies.signing import Signer, sign_envelope
from policies.station_profile import PAYLOAD_TYPE
from station.admission.gpus import LeasableGpus
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.catalogue.dcat import catalogue as dcat_catalogue
from station.catalogue.profile import station_profile
from station.catalogue.published import PublishedCounts
from station.catalogue.query import CatalogueQuery, count
from station.catalogue.readiness_job import ReadinessJob, ReadinessQuestion, ReadinessReport
from station.catalogue.tables import Clinical
from station.egress.records.ledger import EgressLedger, LedgerEntry, MessageType
from station.sandbox.spec import EngineInfo, Launcher
from station.settings import StationSettings
from station.storage import Database
from station.web.catalogue_views import (
    CollectionReadinessView,
    CountsView,
    ObstacleView,
    ReadinessRequest,
    ReadinessView,
    SeriesReadinessView,
    ToldView,
)


@dataclass(frozen=True, slots=True)
class CatalogueDesk:
    """Implements `station.web.catalogue_views.CatalogueUses`.

    Attributes:
        readiness_job: looks for what would stop a train.
        take_up: brings the catalogue up to what intake handed over; says how that went.
        signer: the station's identity key.
        clock: the moment it is.
    """

    settings: StationSettings
    database: Database
    published: PublishedCounts
    take_up: Callable[[], object]
    launcher: Launcher
    ledger: EgressLedger
    audit: AuditLog
    signer: Signer
    readiness_job: ReadinessJob
    clock: Callable[[], datetime]

    def query(self, query: CatalogueQuery) -> list[CountsView]:
        """Count what meets every condition."""
        self.take_up()
        with self.database.read() as session:
            found = count(session, query)
        return [
            CountsView(
                collection=one.collection,
                patients=one.patients,
                studies=one.studies,
                series=one.series,
                images=one.images,
            )
            for one in found
        ]

    def told(self) -> list[ToldView]:
        """The table of counts as it is told outside."""
        return [
            ToldView(
                collection=row.collection,
                patients=row.patients,
                studies=row.studies,
                images={str(modality): images for modality, images in row.images.items()},
            )
            for row in self.published.table(self.clock())
        ]

    def start_readiness(self, request: ReadinessRequest) -> ReadinessView:
        """Begin to look for what would stop a train."""
        needs = None
        if request.manifest is not None:
            needs = load_yaml(TrainManifest, request.manifest.encode(), what="train.yaml").data
        offered = self.settings.consent_modes
        if request.collection is not None:
            if request.collection not in offered:
                raise NotFoundError(
                    "this collection is not offered", hint="station.toml lists those that are."
                )
            offered = {request.collection: offered[request.collection]}
        self.take_up()
        self.audit.append(
            AuditRecord(
                event=AuditEvent.READINESS_LOOKED,
                actor="operator:desk",
                object=None if request.collection is None else f"collection:{request.collection}",
            )
        )
        question = ReadinessQuestion(offered, needs, request.minimum_patients, self.settings.consent_limit)
        return _readiness_view(self.readiness_job.start(question))

    def readiness(self) -> ReadinessView:
        """How far the look is, and what it found."""
        return _readiness_view(self.readiness_job.report())

    def export_profile(self) -> bytes:
        """The station's profile, signed."""
        now = self.clock()
        gpus = LeasableGpus(self.settings, self.launcher)()
        profile = station_profile(self.settings, self.published.table(now), self._engine(), now, gpus)
        return self._leaves(sign_envelope(canonical_json(profile), PAYLOAD_TYPE, self.signer), "profile")

    def export_dcat(self) -> bytes:
        """The collections in HealthDCAT-AP."""
        now = self.clock()
        document = dcat_catalogue(self.settings, self.published.table(now), self._profiles(), now)
        return self._leaves(canonical_json(document), "dcat")

    def _leaves(self, document: bytes, what: str) -> bytes:
        digest = digest_of(document)
        self.audit.append(
            AuditRecord(
                event=AuditEvent.COUNTS_EXPORTED, actor="operator:desk", object=digest, detail=f"as {what}"
            )
        )
        self.ledger.append(LedgerEntry(type=MessageType.COUNTS, digest=digest, size=len(document)))
        return document

    def _engine(self) -> EngineInfo | None:
        try:
            return self.launcher.engine_info()
        except (RefusedError, UnavailableError):
            return None

    def _profiles(self) -> tuple[Profile, ...]:
        """Return the minimal datasets that the collections' clinical data are kept in."""
        with self.database.read() as session:
            names = session.scalars(select(Clinical.profile).distinct().order_by(Clinical.profile)).all()
        found = []
        for name in names:
            try:
                found.append(load_profile(name))
            except NotFoundError:
                continue
        return tuple(found)


def _readiness_view(report: ReadinessReport) -> ReadinessView:
    return ReadinessView(
        done=report.done,
        total=report.total,
        finished=report.finished,
        failed=report.failed,
        read=report.read,
        collections=[
            CollectionReadinessView(
                collection=one.collection,
                series=one.series,
                ready_series=one.ready_series,
                patients=one.patients,
                ready_patients=one.ready_patients,
                obstacles=[
                    ObstacleView(
                        reason=each.reason,
                        series=each.series,
                        files=each.files,
                        patients=each.patients,
                        advice=each.advice,
                    )
                    for each in one.obstacles
                ],
            )
            for one in report.collections
        ],
        series=[
            SeriesReadinessView(collection=one.collection, series=one.series_uid, reasons=dict(one.reasons))
            for one in report.series
        ],
        series_not_listed=report.series_not_listed,
    )
