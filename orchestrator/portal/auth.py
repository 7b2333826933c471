"""Who asks: a bearer token, or a request signed with the node key of a registered station.

Decides identity only; each route says which roles it takes. A request that carries both is refused. What is refused here is
in the audit (thinned), and slows down who goes on guessing (`orchestrator.registry.limiting`).
"""

import base64
import binascii
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.portal.limits import OVER, address_of
from orchestrator.portal.problems import ForbiddenError, TooManyRequestsError, UnauthorisedError
from orchestrator.registry.access import Access, Principal, Role
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.registry.stations import Stations
from orchestrator.services import Services
from policies.documents import Digest, digest_of
from policies.errors import TrustError
from policies.wire.http import (
    EMPTY_DIGEST,
    KEY_HEADER,
    SIGNATURE_HEADER,
    RequestSignatureError,
    verify_request,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        principal: the party.
        body_digest: what the signature says the body is; None for a token, where TLS alone protects the body.
        route: what they ask for.
        audit: takes down what they are refused.
    """

    principal: Principal
    body_digest: str | None
    route: str
    audit: Audit


def services(request: Request) -> Services:
    """Return what the application was made with."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application has no services")
    return found


ServicesOf = Annotated[Services, Depends(services)]


def caller(request: Request, parts: ServicesOf) -> Caller:
    """Return who asks.

    Raises:
        UnauthorisedError: no proof, two proofs, or one that does not hold.
        TooManyRequestsError: it asks too often, or too many proofs from its address did not hold.
    """
    header = request.headers.get("authorization")
    signed = SIGNATURE_HEADER in request.headers
    if header is None and not signed:
        raise UnauthorisedError("send either a bearer token or a signed request")
    address = address_of(request.scope)
    credential = digest_of(f"{header}\n{request.headers.get(KEY_HEADER)}".encode())
    over_s = float(request.scope.get(OVER, 0.0))
    wait_s = parts.gate.before_proof(
        address, credential, over_s, lambda: _station_shown(request, parts.stations) is not None
    )
    if wait_s > 0.0:
        raise TooManyRequestsError(wait_s)
    try:
        principal, body_digest = _proof(request, header, parts)
    except (RequestSignatureError, TrustError) as error:
        event = AuditEvent(
            action=Action.PROOF_REFUSED,
            who=f"address {address}",
            about=_route(request),
            outcome="refused",
            code="token" if header is not None else "signature",
        )
        parts.audit.append_thinned(event)
        # A station's key is public, and its clock may be wrong: what fails with it is not held against its neighbours.
        shown = _station_shown(request, parts.stations)
        if (wait_s := parts.gate.refused(address if shown is None else f"{address} {shown}")) > 0.0:
            raise TooManyRequestsError(wait_s) from error
        raise UnauthorisedError(error.message, hint=error.hint) from error
    if (wait_s := parts.gate.proven(address, credential, principal.id, over_s)) > 0.0:
        raise TooManyRequestsError(wait_s)
    return Caller(principal, body_digest, _route(request), parts.audit)


CallerOf = Annotated[Caller, Depends(caller)]


def require(asking: Caller, *roles: Role) -> Principal:
    """Return the principal if its role is one of `roles`.

    Raises:
        ForbiddenError: it is not.
    """
    if asking.principal.role not in roles:
        event = AuditEvent(
            action=Action.ROLE_REFUSED,
            who=asking.principal.id,
            about=asking.route,
            outcome="refused",
            code=asking.principal.role,
        )
        asking.audit.append_thinned(event, by_object=True)
        raise ForbiddenError(f"this is not for the role {asking.principal.role}")
    return asking.principal


def _proof(request: Request, header: str | None, parts: Services) -> tuple[Principal, str | None]:
    if header is None:
        return _by_signature(request, parts)
    if SIGNATURE_HEADER in request.headers:
        raise TrustError("send either a bearer token or a signed request")
    return _by_token(header, parts.access), None


def _by_token(header: str, access: Access) -> Principal:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TrustError("the Authorization header is not a bearer token")
    return access.by_token(token.strip())


def _by_signature(request: Request, parts: Services) -> tuple[Principal, str]:
    target = request.scope["raw_path"].decode("ascii")
    if query := request.scope["query_string"].decode("ascii"):
        target = f"{target}?{query}"
    fingerprint, body_digest = verify_request(request.method, target, request.headers, now=time.time())
    if request.method in {"GET", "HEAD"} and body_digest != EMPTY_DIGEST:
        raise TrustError("the signature is over a body that was not sent")
    principal = parts.access.by_station_key(fingerprint)
    parts.stations.saw(fingerprint)
    return principal, body_digest


def _station_shown(request: Request, stations: Stations) -> Digest | None:
    """Return the fingerprint of the registered key that a signed request shows; what shows a token is a token's."""
    if "authorization" in request.headers or SIGNATURE_HEADER not in request.headers:
        return None
    try:
        # A fingerprint is the digest of the key as it is sent: nothing needs to be parsed for a look at the register.
        key = base64.b64decode(request.headers.get(KEY_HEADER, ""), validate=True)
    except (binascii.Error, ValueError):
        return None
    fingerprint = digest_of(key)
    return fingerprint if 0 < len(key) <= 1024 and stations.is_registered(fingerprint) else None


def _route(request: Request) -> str:
    # The route's own path, not the request's: nothing a stranger wrote.
    path = getattr(request.scope.get("route"), "path", "")
    return f"{request.method} {path}"[:300]
