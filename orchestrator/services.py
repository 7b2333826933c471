"""The use cases of one orchestrator, put together from its home; the portal and the command line call these."""

from dataclasses import dataclass

from orchestrator.registry.access import Access
from orchestrator.registry.blobs import BlobStore, StoreLimits
from orchestrator.registry.bundles import Bundles
from orchestrator.registry.mirror import Mirror
from orchestrator.registry.orders import Orders
from orchestrator.registry.runs import Runs
from orchestrator.registry.statements import Statements
from orchestrator.registry.stations import Stations
from orchestrator.settings import Home, Settings, load_settings
from orchestrator.storage import Database, open_database


@dataclass(frozen=True, slots=True)
class Services:
    """What the orchestrator can do."""

    home: Home
    settings: Settings
    database: Database
    access: Access
    blobs: BlobStore
    bundles: Bundles
    mirror: Mirror
    orders: Orders
    runs: Runs
    stations: Stations
    statements: Statements

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


def open_services(home: Home) -> Services:
    """Open a home.

    Raises:
        NotFoundError: it was not initialised.
        SettingsError: its settings are wrong.
        StateError: its database cannot be used.
    """
    settings = load_settings(home)
    database = open_database(home.database)
    access = Access(database)
    blobs = BlobStore(
        home.blobs, StoreLimits(settings.limits.blob_mib << 20, settings.limits.free_disk_mib << 20)
    )
    bundles = Bundles(database, blobs)
    stations = Stations(home, database)
    runs = Runs(home, database, access)
    return Services(
        home=home,
        settings=settings,
        database=database,
        access=access,
        blobs=blobs,
        bundles=bundles,
        mirror=Mirror(home.mirror),
        orders=Orders(home, database, bundles, stations, runs, settings.timing),
        runs=runs,
        stations=stations,
        statements=Statements(home, database),
    )
