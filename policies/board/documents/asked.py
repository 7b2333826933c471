"""A researcher's request in words, for the researcher and for the board."""

from collections.abc import Sequence

from policies.wire.registry_requests import RequestChange, RequestStatus

CONTESTED = (
    "  CONTESTED:   another researcher claims this train and key; ask whose key it is, and decline the other"
)


def lines_of(found: RequestStatus, history: Sequence[RequestChange]) -> list[str]:
    """Return what a request asks and what became of it; each line is one, whatever the texts hold."""
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
        f"  collections: {', '.join(asked.collections)}",
        f"  stations:    {', '.join(asked.stations) or 'whichever have them'}",
        *(
            f"  {step.moment}  {step.after}, by {step.who}"
            + (f" ({step.code})" if step.code else "")
            + (f": {step.text}" if step.text else "")
            for step in history
        ),
    ]
