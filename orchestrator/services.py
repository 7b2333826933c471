"""The use cases of one orchestrator, put together from its home; the portal and the command line call these."""

import logging
from dataclasses import dataclass

from orchestrator.registry.access import Access
from orchestrator.registry.audit import Audit
from orchestrator.registry.blobs import BlobStore, StoreLimits
from orchestrator.registry.bundles import Bundles
from orchestrator.registry.keeping import Keeping
from orchestrator.registry.limiting import Gate
from orchestrator.registry.mirror import Mirror
from orchestrator.registry.orders import Orders
from orchestrator.registry.quota import Quotas
from orchestrator.registry.requests import Requests
from orchestrator.registry.runs import Runs
from orchestrator.registry.statements import Statements
from orchestrator.registry.stations import Stations
from orchestrator.settings import Home, Settings, database_location, load_settings
from orchestrator.storage import Database, open_database
from policies.errors import PhtError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the orchestrator can do."""

    home: Home
    settings: Settings
    database: Database
    audit: Audit
    gate: Gate
    access: Access
    blobs: BlobStore
    quotas: Quotas
    keeping: Keeping
    bundles: Bundles
    mirror: Mirror
    orders: Orders
    requests: Requests
    runs: Runs
    stations: Stations
    statements: Statements

    def keep_up(self) -> None:
        """Make durable what is only noted or counted, and record where requests stand; what fails is tried again."""
        self.orders.put_right()
        self.requests.follow_quietly()
        self.access.flush()
        self.stations.flush()
        try:
            self.audit.flush()
        except PhtError as error:
            _LOG.warning("audit_not_flushed", extra={"code": type(error).__name__})

    def close(self) -> None:
        """Write what was only noted, and let go of the database."""
        try:
            self.access.flush(all_of_it=True)
            self.stations.flush(all_of_it=True)
            self.audit.flush(all_of_it=True)
        finally:
            self.database.close()


def open_services(home: Home, *, patience_s: float = 0.0) -> Services:
    """Open a home.

    Args:
        home: the orchestrator's folder.
        patience_s: how long a database that does not answer is waited for.

    Raises:
        NotFoundError: it was not initialised.
        SettingsError: its settings are wrong.
        StateError, UnavailableError: its database cannot be used, or does not answer.
    """
    settings = load_settings(home)
    database = open_database(database_location(home, settings), patience_s=patience_s)
    audit = Audit(database)
    access = Access(database, audit)
    blobs = BlobStore(
        home.blobs, StoreLimits(settings.limits.blob_mib << 20, settings.limits.free_disk_mib << 20)
    )
    quotas = Quotas(database, blobs, settings.limits.quota())
    bundles = Bundles(database, blobs, audit)
    stations = Stations(home, database, audit)
    runs = Runs(home, database, access, audit)
    return Services(
        home=home,
        settings=settings,
        database=database,
        audit=audit,
        gate=settings.limits.gate(),
        access=access,
        blobs=blobs,
        quotas=quotas,
        keeping=Keeping(home, database, blobs, quotas, audit),
        bundles=bundles,
        mirror=Mirror(home.mirror),
        orders=Orders(home, database, bundles, stations, runs, settings.timing, audit),
        requests=Requests(home, database, audit),
        runs=runs,
        stations=stations,
        statements=Statements(home, database, audit=audit),
    )
