"""What is known of a pack so far, while its steps are gone through."""

from dataclasses import dataclass, field
from datetime import datetime

from policies.charter import StationRegister
from policies.evidence.archive import TARGETS, Pack
from policies.evidence.repository import RepositoryThen
from policies.evidence.statement import RunFact
from policies.purposes import PurposeTable
from policies.trust.verification import PolicyInForce


@dataclass(slots=True)
class Reading:
    """What is known so far; each part is set by the step that vouches for it."""

    pack: Pack
    root: bytes
    now: datetime
    claim: RunFact
    notes: list[str] = field(default_factory=list)
    repository: RepositoryThen | None = None
    policy: PolicyInForce | None = None
    register: StationRegister | None = None
    purposes: PurposeTable | None = None
    withdrawn: frozenset[str] = frozenset()

    def target(self, path: str) -> bytes | None:
        """Return a packed target of the repository, or None where there is none."""
        name = TARGETS + path
        return self.pack.read(name) if name in self.pack.names else None
