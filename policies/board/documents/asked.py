"""A researcher's request in words, for the researcher and for the board."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from policies.errors import NotFoundError, PhtError
from policies.train_request import verify_request
from policies.wire.registry_requests import RequestChange, RequestStatus

if TYPE_CHECKING:
    from policies.wire.registry_client import RegistryClient

CONTESTED = (
    "  CONTESTED:   another researcher claims this train and key; ask whose key it is, and decline the other"
)
UNSIGNED = "none: it is of an earlier version; who sent it may have copied it"
NOT_ITS_OWN = "DOES NOT HOLD: the orchestrator shows another request, or another sender, than the key signed"


def signature_of(registry: "RegistryClient", found: RequestStatus) -> str:
    """Return what is to be thought of a request's signature, verified here: the orchestrator's word counts for nothing."""
    try:
        proven = verify_request(registry.requests.envelope(found.id))
    except NotFoundError:
        return UNSIGNED
    except PhtError:
        return NOT_ITS_OWN
    if (proven.document, proven.sender) != (found.request, found.owner):
        return NOT_ITS_OWN
    return f"by this key, for {proven.sender}"


def lines_of(found: RequestStatus, history: Sequence[RequestChange], signature: str) -> list[str]:
    """Return what a request asks and what became of it; each line is one, whatever the texts hold.

    Args:
        found: the request.
        history: its changes, the oldest first.
        signature: from `signature_of`.
    """
    asked = found.request
    train, requester = asked.train, asked.requester
    policy = "" if found.policy_id is None else f" by {found.policy_id} version {found.policy_version}"
    return [
        f"Request {found.id} of {found.owner}: {found.state}{policy}",
        *([CONTESTED] if found.contested else []),
        f"  train:       {train.name} {train.version}",
        f"  manifest:    {train.manifest_digest}",
        f"  purpose:     {asked.purpose.code}: {asked.purpose.statement}",
        f"  benefit:     {asked.purpose.benefit}",
        f"  requester:   {requester.organisation} ({requester.requester_class}, {requester.country})",
        f"  contact:     {requester.contact}",
        f"  key:         {requester.key}",
        f"  signature:   {signature}",
        f"  collections: {', '.join(asked.collections)}",
        f"  stations:    {', '.join(asked.stations) or 'whichever have them'}",
        *(
            f"  {step.moment}  {step.after}, by {step.who}"
            + (f" ({step.code})" if step.code else "")
            + (f": {step.text}" if step.text else "")
            for step in history
        ),
    ]
