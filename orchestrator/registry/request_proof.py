"""Whose a request is: the key that it names has signed it, for the very account that sends it."""

from orchestrator.registry.access import Principal
from orchestrator.registry.audit import Action, Audit, AuditEvent
from policies.documents import digest_of
from policies.errors import RefusedError, TrustError
from policies.train_request import VerifiedRequest, verify_request

REQUEST_SENDER = "REQUEST_SENDER"


def proven_request(audit: Audit, principal: Principal, envelope: bytes) -> VerifiedRequest:
    """Return a request whose signature holds and which its sender may send; what is refused is in the audit.

    Raises:
        TrustError: the key that it names did not sign it, or it is no envelope.
        DocumentError: its content is no request.
        RefusedError: it is signed for another account (REQUEST_SENDER).
    """
    try:
        return _own(principal, verify_request(envelope))
    except (RefusedError, TrustError) as error:
        event = AuditEvent(
            action=Action.REQUEST_REFUSED,
            who=principal.id,
            about=digest_of(envelope),
            outcome="refused",
            code=error.code if isinstance(error, RefusedError) else "TRUST",
        )
        # Not by object: its digest is whatever the sender makes it.
        audit.append_thinned(event)
        raise


def _own(principal: Principal, proven: VerifiedRequest) -> VerifiedRequest:
    if proven.sender != principal.name:
        raise RefusedError(
            REQUEST_SENDER,
            "the request is signed for another account than the one that sends it",
            hint="Sign it for your own: `pht-train request send --key` does.",
        )
    return proven
