"""Drives accepted orders through Flower: the SuperLink, the run worker, the ServerApp and its rounds."""

from orchestrator.federation.flower import Address, Control
from orchestrator.federation.orders import (
    AcceptedOrder,
    FolderQueue,
    OrderQueue,
    RunFolder,
    RunProgress,
    RunState,
    Timing,
)
from orchestrator.federation.superlink import FLEET_ROUTES, SuperLink, SuperLinkFiles

__all__ = [
    "FLEET_ROUTES",
    "AcceptedOrder",
    "Address",
    "Control",
    "FolderQueue",
    "OrderQueue",
    "RunFolder",
    "RunProgress",
    "RunState",
    "SuperLink",
    "SuperLinkFiles",
    "Timing",
]
