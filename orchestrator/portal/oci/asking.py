"""Who asks the distribution API: a token as a bearer, or as the password of any user name; or a station's signed request.

Ordinary tools know user and password (RFC 7617). The token is what counts; the name is not looked at.
"""

import base64
from typing import Final

from fastapi import Request

from orchestrator.portal.auth import Caller, caller, require
from orchestrator.portal.problems import UnauthorisedError
from orchestrator.registry.access import Principal, Role
from orchestrator.services import Services

_PULLING: Final = (Role.RESEARCHER, Role.STATION, Role.BOARD, Role.OPERATOR)
_MAX_HEADER: Final = 4096


def who_pulls(request: Request, parts: Services) -> Principal:
    """Return who asks, where they may read trains.

    Raises:
        UnauthorisedError, ForbiddenError: they may not.
    """
    return require(_caller(request, parts), *_PULLING)


def who_pushes(request: Request, parts: Services) -> Principal:
    """Return who asks, where they may send trains.

    Raises:
        UnauthorisedError, ForbiddenError: they may not.
    """
    return require(_caller(request, parts), Role.RESEARCHER)


def _caller(request: Request, parts: Services) -> Caller:
    header = request.headers.get("authorization", "")
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return caller(request, parts)
    try:
        text = base64.b64decode(encoded[:_MAX_HEADER].strip(), validate=True).decode("ascii")
    except ValueError as error:
        raise UnauthorisedError("the Authorization header is not basic authentication") from error
    token = text.partition(":")[2]
    # One way to check a token, whatever it came in.
    headers = [
        (name, f"Bearer {token}".encode() if name == b"authorization" else value)
        for name, value in request.scope["headers"]
    ]
    return caller(Request({**request.scope, "headers": headers}), parts)
