"""The station's profile document (DESIGN section 5), from settings, the published table and what the engine says."""

import re
from collections.abc import Sequence
from datetime import datetime

from policies.station_profile import (
    Ceilings,
    CollectionCounts,
    CollectionProfile,
    EngineFacts,
    StationProfile,
)
from station.catalogue.published import PublishedRow
from station.sandbox.spec import EngineInfo
from station.settings import StationSettings

_UNTOLD = re.compile(r"[^A-Za-z0-9 ._+/()~:-]")


def station_profile(
    settings: StationSettings,
    table: Sequence[PublishedRow],
    engine: EngineInfo | None,
    now: datetime,
    gpu_memory_mib: tuple[int, ...] | None = None,
) -> StationProfile:
    """Return what the station tells about itself.

    Args:
        settings: the hospital's.
        table: as it is told outside now.
        engine: None where it did not answer.
        now: the station's clock.
        gpu_memory_mib: of each GPU that it leases; None where the launcher cannot say.
    """
    rows = {row.collection: row for row in table}
    ceilings = settings.ceilings
    return StationProfile(
        station=settings.name,
        made=now,
        collections=tuple(
            CollectionProfile(
                name=offered.name,
                marking=offered.marking,
                consent_mode=offered.consent_mode,
                requester_classes=offered.requester_classes,
                purposes=offered.purposes,
                countries=offered.countries,
                counts=_counts(rows[offered.name]),
            )
            for offered in settings.collections
        ),
        ceilings=Ceilings(
            memory_mib=ceilings.memory_mib,
            cpus=ceilings.cpus,
            pids=ceilings.pids,
            scratch_mib=ceilings.scratch_mib,
            message_timeout_s=ceilings.message_timeout_s,
            runs_at_once=ceilings.runs_at_once,
        ),
        operator_approval=settings.hospital.operator_approval,
        consent_max_age_days=settings.hospital.consent_max_age_days,
        failed_messages=settings.hospital.failed_messages,
        quiet_hours=settings.hospital.quiet_hours,
        timezone=settings.hospital.timezone,
        minimum_k=settings.hospital.minimum_k,
        engine=None if engine is None else _facts(engine),
        gpu_memory_mib=gpu_memory_mib,
    )


def _counts(row: PublishedRow) -> CollectionCounts:
    return CollectionCounts(patients=row.patients, studies=row.studies, images=dict(row.images))


def _facts(engine: EngineInfo) -> EngineFacts:
    return EngineFacts(
        name=_plain(engine.name),
        version=_plain(engine.version),
        architecture=_plain(engine.architecture),
        unfit=tuple(_plain(limit) for limit in engine.unfit),
    )


def _plain(text: str) -> str:
    """Return what an engine says of itself in the few characters that leave."""
    return _UNTOLD.sub("_", text)[:64]
