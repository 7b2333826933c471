"""What admission asks of the station's own records: are they the newest there were?"""

from datetime import datetime
from typing import Protocol

from policies.refusals import Reason
from policies.trust.policy_set import PolicySet


class RecordKeeping(Protocol):
    """Whether the station's own records are the newest there were (`station.continuity`)."""

    def reason(self) -> Reason | None:
        """Return why nothing may run on them now; asks memory only."""

    def spent(self, order_digest: str, issued: datetime) -> Reason | None:
        """Return why an order cannot run any more because of a restoration; asks memory only."""

    def note_trust(self, policies: PolicySet) -> None:
        """Put on record which state of the board's repository is about to count.

        Raises:
            StorageError: it cannot be; then it must not count.
        """


class Unwitnessed:
    """The records of a station that nobody countersigns."""

    def reason(self) -> Reason | None:
        """Nothing stands against them."""
        return None

    def spent(self, order_digest: str, issued: datetime) -> Reason | None:
        """They were never restored."""
        del order_digest, issued
        return None

    def note_trust(self, policies: PolicySet) -> None:
        """Nobody asks for it."""
