"""The orchestrator's database: tokens, bundles, orders, stations, and who may read which blob."""

from orchestrator.storage.database import Database, open_database
from orchestrator.storage.tables import (
    AuditEventRow,
    BlobGrant,
    BundleRow,
    ForkRow,
    OciBlobRow,
    OciManifestRow,
    OrderRow,
    OrderStationRow,
    RequestRow,
    RequestStepRow,
    RestorationRow,
    StatementRow,
    StationRow,
    TokenRow,
)

__all__ = [
    "AuditEventRow",
    "BlobGrant",
    "BundleRow",
    "Database",
    "ForkRow",
    "OciBlobRow",
    "OciManifestRow",
    "OrderRow",
    "OrderStationRow",
    "RequestRow",
    "RequestStepRow",
    "RestorationRow",
    "StatementRow",
    "StationRow",
    "TokenRow",
    "open_database",
]
