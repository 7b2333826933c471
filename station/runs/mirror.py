"""This hospital's mirror report of a run: fetched from the orchestrator when the operator asks, shown and not kept.

The orchestrator's word, nobody's proof. What a station released itself stands in its own ledger, which this is not. The call carries the
order's digest, that the orchestrator gave us, and our signature; it is covered by an entry of the egress ledger before it leaves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from policies.documents import Digest
from policies.errors import WireError
from policies.mirror_report import MirrorReport, read_report
from station.egress.records.calls import Call


class Reports(Protocol):
    """The orchestrator's API as far as reports go; `policies.wire.registry_client.RegistryClient` is one."""

    def get_mirror_report(self, run: Digest) -> bytes:
        """Return our report of a run, as it came."""

    def close(self) -> None:
        """Drop the connections."""


@dataclass(frozen=True, slots=True)
class MirrorReports:
    """The use case.

    Attributes:
        station: who we are.
        connect: opens a connection of its own: the operator's question and the messenger's do not share one.
        announce: sees to it that the ledger covers the call.
    """

    station: str
    connect: Callable[[], Reports]
    announce: Callable[[Call], None]

    def fetch(self, order: Digest) -> MirrorReport:
        """Return our report of a run that is over.

        Raises:
            NotFoundError: the orchestrator has none for us (yet).
            NetworkError: it does not answer.
            WireError: what came is no report, or another's.
        """
        self.announce(Call.MIRROR_REPORT)
        registry = self.connect()
        try:
            report = read_report(registry.get_mirror_report(order))
        finally:
            registry.close()
        if (report.station, report.order_digest) != (self.station, order):
            raise WireError("the orchestrator sent another report than was asked for")
        return report
