"""Which policies in force name which train and requester's key: what a request's approval is read off.

Reads the verified mirror, and again only when its timestamp is another, or an hour later. A mirror that does not verify says
nothing: neither that something is approved, nor that it is not any more.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from orchestrator.registry.mirror import TIMESTAMP
from orchestrator.registry.request_states import PolicyFact
from orchestrator.registry.trust import verified_policies
from orchestrator.settings import Home
from policies.documents import Digest
from policies.errors import PhtError
from policies.refusals import RefusalCode, Refused
from policies.trust.policy_set import PolicySet

_READ_AGAIN_S: Final = 3600.0
_TRY_AGAIN_S: Final = 5.0
PolicyKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Approving:
    """What the mirror says of one request: the fact, and the policy behind it where there is one in force."""

    fact: PolicyFact | None
    policy: PolicyKey | None


@dataclass(frozen=True, slots=True)
class ApprovalsNow:
    """One verified state of the mirror at one moment; `policies` is None where none verifies."""

    policies: PolicySet | None
    by_request: Mapping[tuple[Digest, str], tuple[PolicyKey, ...]]
    until: Mapping[PolicyKey, datetime]
    now: datetime

    def of(self, manifest: Digest, key: str, held: PolicyKey | None) -> Approving:
        """Return what holds for a manifest and a requester's key.

        Args:
            manifest: the manifest's digest.
            key: the requester's public key, hex.
            held: the policy that approved the request, where one did.
        """
        if self.policies is None:
            return Approving(None, None)
        found = [
            policy for policy in self.by_request.get((manifest, key), ()) if self.until[policy] > self.now
        ]
        if found:
            # The same policy as before where it may be, in its newest version.
            chosen = max(found, key=lambda policy: (held is not None and policy[0] == held[0], policy))
            return Approving(PolicyFact(True, "POLICY_IN_FORCE"), chosen)
        if held is None:
            return Approving(PolicyFact(False, RefusalCode.POLICY_MISSING), None)
        result = self.policies.find(*held)
        code = result.code if isinstance(result, Refused) else RefusalCode.POLICY_EXPIRED
        return Approving(PolicyFact(False, code), None)


class Approvals:
    """Reads the mirror when it has changed.

    Args:
        home: the orchestrator's.
        clock: returns the moment it is.
    """

    def __init__(self, home: Home, clock: Callable[[], datetime]) -> None:
        self._home, self._clock = home, clock
        self._mark: tuple[int, int] | None = None
        self._policies: PolicySet | None = None
        self._by_request: dict[tuple[Digest, str], tuple[PolicyKey, ...]] = {}
        self._until: dict[PolicyKey, datetime] = {}
        self._again = 0.0
        self._lock = threading.Lock()

    def now(self) -> ApprovalsNow:
        """Return what the mirror says."""
        with self._lock:
            now = self._clock()
            stale = self._policies is not None and self._policies.state.expires <= now
            mark = self._timestamp()
            if mark != self._mark or stale or time.monotonic() >= self._again:
                self._read(now)
                self._mark = mark
            return ApprovalsNow(self._policies, self._by_request, self._until, now)

    def _timestamp(self) -> tuple[int, int] | None:
        try:
            found = (self._home.mirror / "metadata" / TIMESTAMP).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _read(self, now: datetime) -> None:
        self._by_request, self._until = {}, {}
        try:
            self._policies = verified_policies(self._home, now)
        except PhtError:
            self._policies = None
            self._again = time.monotonic() + _TRY_AGAIN_S
            return
        self._again = time.monotonic() + _READ_AGAIN_S
        for policy, found in self._policies.policies.items():
            pair = (found.policy.manifest_digest, found.policy.requester.key)
            self._by_request[pair] = (*self._by_request.get(pair, ()), policy)
            self._until[policy] = found.policy.valid_until
