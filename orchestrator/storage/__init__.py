"""The orchestrator's database: tokens, bundles, orders, stations, and who may read which blob."""

from orchestrator.storage.database import Database, open_database
from orchestrator.storage.models import (
    BlobGrant,
    BundleRow,
    OrderRow,
    OrderStationRow,
    StationRow,
    TokenRow,
)

__all__ = [
    "BlobGrant",
    "BundleRow",
    "Database",
    "OrderRow",
    "OrderStationRow",
    "StationRow",
    "TokenRow",
    "open_database",
]
