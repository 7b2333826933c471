"""What a station states of its records, as tests need it: consistent, and told apart by its sequence."""

from datetime import UTC, datetime
from typing import Any

from policies.station_statement import ChainEnd, PolicyUse, StationStatement


def digest(number: int) -> str:
    return "sha256:" + f"{number:064x}"


def statement(sequence: int, **changes: Any) -> StationStatement:
    """A statement of `amstel`; its chains and counters grow with the sequence."""
    fields: dict[str, Any] = {
        "station": "amstel",
        "epoch": 1,
        "sequence": sequence,
        "time": datetime(2026, 11, 22, 12, tzinfo=UTC),
        "audit": ChainEnd(seq=10 * sequence, digest=digest(10 * sequence)),
        "egress": ChainEnd(seq=5 * sequence, digest=digest(5 * sequence)),
        "policies": (PolicyUse(policy_id="cxr", runs=1, releases=sequence),),
    }
    return StationStatement(**{**fields, **changes})
