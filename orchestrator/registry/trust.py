"""The orchestrator as a reader of its own mirror: what it checks, it checks like a station, from the pinned root.

It is not trusted to decide (I4): what it finds here spares people a wait, and stations decide again.
"""

from datetime import UTC, datetime

from orchestrator.settings import Home
from policies.charter import Charter
from policies.errors import TrustError
from policies.refusals import Permitted
from policies.trust.client import PolicyClient
from policies.trust.policy_set import PolicySet


def pin_root(home: Home, root: bytes) -> Charter:
    """Trust this root of the board from now on.

    Raises:
        TrustError: it is not a root, or another one is pinned.
    """
    return PolicyClient.pin(home.trust, root)


def verified_policies(home: Home, now: datetime | None = None) -> PolicySet:
    """Return what the mirror holds, verified.

    Raises:
        TrustError: no root is pinned, or the mirror is empty, stale or does not verify.
    """
    if not (home.trust / "root.json").is_file():
        raise TrustError(
            "the board's root is not pinned here",
            hint="Run `pht-orchestrator pin-root HOME root.json` with its file.",
        )
    result = PolicyClient(home.trust, home.mirror).refresh(now or datetime.now(UTC))
    if isinstance(result, Permitted):
        return result.value
    reason = result.reasons[0]
    raise TrustError(
        f"the mirror does not verify ({reason.code})",
        hint=reason.detail or "Ask the board's secretary to publish.",
    )
