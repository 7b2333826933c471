"""The tables, a module per subject; whoever imports this package knows them all."""

from orchestrator.storage.tables.audit import AuditEventRow
from orchestrator.storage.tables.base import Base
from orchestrator.storage.tables.bundles import BlobGrant, BundleRow
from orchestrator.storage.tables.oci import OciBlobRow, OciManifestRow
from orchestrator.storage.tables.orders import OrderRow, OrderStationRow
from orchestrator.storage.tables.parties import StationRow, TokenRow
from orchestrator.storage.tables.requests import RequestRow, RequestStepRow
from orchestrator.storage.tables.statements import ForkRow, RestorationRow, StatementRow

__all__ = [
    "AuditEventRow",
    "Base",
    "BlobGrant",
    "BundleRow",
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
]
