"""Puts a station's layer store together from its settings."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from policies.blobs import BlobFolder
from policies.errors import SettingsError
from policies.wire.oci_auth import Credentials
from policies.wire.proxies import Proxy
from station.audit.events import AuditEvent, AuditRecord
from station.audit.log import AuditLog
from station.images.records import Records
from station.images.registry.client import RegistryClient
from station.images.registry.source import RegistrySource
from station.images.room import MIB, Engine, Needs, Room, Terms
from station.images.sources import ImageSource, Sources
from station.images.store import LayerStore
from station.settings.images import ImageSettings

_STATION = "station:compute"


def make_store(
    layers: Path,
    settings: ImageSettings,
    sources: Sequence[ImageSource],
    *,
    needs: Needs,
    engine: Engine,
    audit: AuditLog,
    clock: Callable[[], datetime],
) -> LayerStore:
    """Make the store of a station.

    Args:
        layers: its folder.
        settings: the hospital's.
        sources: in their order.
        needs: what is needed.
        engine: where images are removed too.
        audit: where removals are recorded.
        clock: the moment it is.
    """

    def note(config_digest: str, freed: int, actor: str | None) -> None:
        audit.append(
            AuditRecord(
                event=AuditEvent.IMAGE_REMOVED,
                actor=actor or _STATION,
                object=config_digest,
                numbers={"bytes": freed},
            )
        )

    store, records = BlobFolder(layers), Records(layers)
    terms = Terms(settings.quota_mib * MIB, settings.free_mib * MIB, timedelta(days=settings.keep_days))
    room = Room(store, records, needs, engine, note, terms, clock)
    return LayerStore(store, records, Sources(sources), room, clock)


def make_registry(
    settings: ImageSettings, home: Path, *, proxy: Proxy | None, announce: Callable[[], None]
) -> RegistrySource:
    """Make the source that the settings name.

    Raises:
        SettingsError: its credentials or its authority cannot be read.
    """
    if settings.registry_url is None or settings.registry_repository is None:
        raise SettingsError("images: registry_url and registry_repository are not set")
    credentials = settings.registry_credentials_file
    ca = settings.registry_ca_file
    if ca is not None and not (home / ca).is_file():
        raise SettingsError("images.registry_ca_file: there is no such file in the station's folder")
    return RegistrySource(
        RegistryClient(
            settings.registry_url,
            settings.registry_repository,
            ca=None if ca is None else home / ca,
            credentials=None
            if credentials is None
            else Credentials.read(home / credentials, "images.registry_credentials_file"),
            hosts=settings.registry_hosts,
            proxy=proxy,
            announce=announce,
        )
    )
