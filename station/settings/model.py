"""All settings of one station, and the hospital's own rules in them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from policies.documents import Name, Sequence, StrictModel
from policies.manifest import TrainKind
from policies.policy import ConsentMode
from policies.rules.admission import CollectionOffer, HospitalRules
from policies.rules.hours import asks_operator, in_quiet_hours
from station.settings.consent import ConsentSettings
from station.settings.dicom import PacsSettings, ReceiverSettings
from station.settings.egress import EgressSettings
from station.settings.files import ProcessingSettings, RetentionSettings
from station.settings.gpu import GpuSection
from station.settings.images import ImageSettings
from station.settings.outside import CountsSettings, DcatSettings
from station.settings.pixels import PixelSection
from station.settings.predictions import PredictionSettings
from station.settings.privacy import PrivacySettings
from station.settings.review import ReviewSettings
from station.settings.sections import (
    CeilingSettings,
    CollectionSettings,
    EngineSettings,
    HospitalSettings,
    OrchestratorSettings,
    PollingSettings,
    PseudonymSettings,
    ServiceSettings,
    time_zone,
)
from station.settings.statements import StatementSettings


class StationSettings(StrictModel):
    """All settings of one station."""

    name: Name = Field(description="The station's name in the board's register.")
    orchestrator: OrchestratorSettings
    services: ServiceSettings
    pseudonyms: PseudonymSettings = Field(default_factory=PseudonymSettings)
    consent: ConsentSettings = Field(default_factory=ConsentSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    gpu: GpuSection = Field(default_factory=GpuSection)
    images: ImageSettings = Field(default_factory=ImageSettings)
    ceilings: CeilingSettings
    hospital: HospitalSettings
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    predictions: PredictionSettings = Field(default_factory=PredictionSettings)
    polling: PollingSettings = Field(default_factory=PollingSettings)
    statements: StatementSettings = Field(default_factory=StatementSettings)
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    egress: EgressSettings = Field(default_factory=EgressSettings)
    counts: CountsSettings = Field(default_factory=CountsSettings)
    dcat: DcatSettings = Field(default_factory=DcatSettings)
    receiver: ReceiverSettings = Field(default_factory=ReceiverSettings)
    pacs: Sequence[PacsSettings] = ()
    pixels: PixelSection = Field(default_factory=PixelSection)
    processing: ProcessingSettings = Field(default_factory=ProcessingSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    collections: Sequence[CollectionSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [collection.name for collection in self.collections]
        if len(set(names)) != len(names):
            raise ValueError("collections: a name stands twice")
        return self

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        names = [pacs.name for pacs in self.pacs]
        if len(set(names)) != len(names):
            raise ValueError("pacs: a name stands twice")
        for _, _, collection in self.receiver.feeds:
            if self.collection(collection) is None:
                raise ValueError(f"receiver.feeds: {collection} is not one of [[collections]]")
        feeds = {(calling, called) for calling, called, _ in self.receiver.feeds}
        for pacs in self.pacs:
            if pacs.method == "c-move" and not self.receiver.enabled:
                raise ValueError(f"pacs {pacs.name}: c-move needs the receiver enabled")
            if (pacs.ae_title, pacs.destination) in feeds:
                raise ValueError(f"pacs {pacs.name}: what it sends to {pacs.destination} is a feed already")
        return self

    def collection(self, name: str) -> CollectionSettings | None:
        """Return the settings of an offered collection, or None where it is not offered."""
        return next((collection for collection in self.collections if collection.name == name), None)

    @property
    def consent_modes(self) -> dict[str, ConsentMode]:
        """How the patients of each offered collection were asked."""
        return {collection.name: collection.consent_mode for collection in self.collections}

    @property
    def consent_limit(self) -> timedelta:
        """How old the consent source may be."""
        return timedelta(days=self.hospital.consent_max_age_days)

    def needs_operator(self, kind: TrainKind) -> bool:
        """Tell whether a train of this kind waits for the operator's word."""
        return asks_operator(self.hospital.operator_approval, kind)

    def needs_review(self, kind: TrainKind) -> bool:
        """Tell whether the hospital has a person look at what a train of this kind returns, whatever its policy asks."""
        trains = self.review.trains
        return trains == "always" or (trains == "training" and kind is TrainKind.TRAINING)

    def quiet(self, now: datetime) -> bool:
        """Tell whether `now` (with a time zone) falls in the quiet hours; a range may pass midnight."""
        return in_quiet_hours(self.hospital.quiet_hours, time_zone(self.hospital.timezone), now)

    def hospital_rules(self, now: datetime) -> HospitalRules:
        """Return the hospital's rules as admission asks for them."""
        return HospitalRules(
            station=self.name,
            collections={
                collection.name: CollectionOffer(
                    marking=collection.marking,
                    consent_mode=collection.consent_mode,
                    requester_classes=frozenset(collection.requester_classes),
                    purposes=frozenset(collection.purposes),
                    countries=frozenset(collection.countries),
                )
                for collection in self.collections
            },
            memory_mib=self.ceilings.memory_mib,
            cpus=self.ceilings.cpus,
            consent_limit=self.consent_limit,
            quiet=self.quiet(now),
        )

    def path(self, home: Path, value: str) -> Path:
        """Resolve a path of the settings: relative ones lie under the station's home."""
        return home / value
