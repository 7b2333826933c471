"""Who asks: a bearer token, or a request signed with the node key of a registered station.

Decides identity only; each route says which roles it takes. A request that carries both is refused.
"""

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from orchestrator.portal.problems import ForbiddenError, UnauthorisedError
from orchestrator.registry.access import Access, Principal, Role
from orchestrator.services import Services
from policies.errors import TrustError
from policies.wire.http import EMPTY_DIGEST, SIGNATURE_HEADER, RequestSignatureError, verify_request


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        principal: the party.
        body_digest: what the signature says the body is; None for a token, where TLS alone protects the body.
    """

    principal: Principal
    body_digest: str | None


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
    """
    header = request.headers.get("authorization")
    signed = SIGNATURE_HEADER in request.headers
    if (header is None) != signed:
        raise UnauthorisedError("send either a bearer token or a signed request")
    try:
        return _by_signature(request, parts.access) if header is None else _by_token(header, parts.access)
    except RequestSignatureError as error:
        raise UnauthorisedError(error.message) from error
    except TrustError as error:
        raise UnauthorisedError(error.message, hint=error.hint) from error


CallerOf = Annotated[Caller, Depends(caller)]


def require(asking: Caller, *roles: Role) -> Principal:
    """Return the principal if its role is one of `roles`.

    Raises:
        ForbiddenError: it is not.
    """
    if asking.principal.role not in roles:
        raise ForbiddenError(f"this is not for the role {asking.principal.role}")
    return asking.principal


def _by_token(header: str, access: Access) -> Caller:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TrustError("the Authorization header is not a bearer token")
    return Caller(access.by_token(token.strip()), None)


def _by_signature(request: Request, access: Access) -> Caller:
    target = request.scope["raw_path"].decode("ascii")
    if query := request.scope["query_string"].decode("ascii"):
        target = f"{target}?{query}"
    fingerprint, body_digest = verify_request(request.method, target, request.headers, now=time.time())
    if request.method in {"GET", "HEAD"} and body_digest != EMPTY_DIGEST:
        raise TrustError("the signature is over a body that was not sent")
    return Caller(access.by_station_key(fingerprint), body_digest)
