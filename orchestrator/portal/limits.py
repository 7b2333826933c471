"""At the API's door: how often an address may ask, and how large a body may be, before a route sees the request.

Who asks is `orchestrator.portal.auth`; it takes up here what `Limited` counted. Invariant: no route reads a body that is larger
than `MAX_BODY_BYTES`, but those that stream one to a file under a ceiling of their own.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import Response

from orchestrator.portal.problems import TooLargeError, TooManyRequestsError, answer
from orchestrator.registry.limiting import Gate
from policies.errors import PhtError

MAX_BODY_BYTES: Final = 8 << 20
"""Above every small body's own ceiling (`orchestrator.portal.body`)."""

OVER: Final = "pht_over_s"
"""Where a request's scope says for how long its address has asked too much; 0.0 where it has not."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PROOFS: Final = frozenset({b"authorization", b"pht-signature"})


class Limited:
    """Wraps the API.

    Args:
        app: what is behind.
        gate: counts requests.
        open_to_all: matches the method and path of routes that ask nobody who they are.
        streams: matches the method and path of routes that stream their body to a file.
        answered: makes the answer to who is turned away.
    """

    def __init__(
        self,
        app: Application,
        gate: Gate,
        open_to_all: re.Pattern[str],
        streams: re.Pattern[str],
        answered: Callable[[PhtError], Response] = answer,
    ) -> None:
        self._app, self._gate, self._open, self._streams = app, gate, open_to_all, streams
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        over_s = self._gate.arrived(address_of(scope))
        scope[OVER] = over_s
        proof = any(name in _PROOFS for name, _ in scope["headers"])
        asked = f"{scope['method']} {scope['path']}"
        if over_s > 0.0 and (not proof or self._open.fullmatch(asked)):
            await self._answered(TooManyRequestsError(over_s))(scope, receive, send)
            return
        if self._streams.fullmatch(asked):
            await self._app(scope, receive, send)
            return
        if _declared(scope) > MAX_BODY_BYTES:
            await self._answered(TooLargeError(MAX_BODY_BYTES))(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)


def address_of(scope: Scope) -> str:
    """Return from where a request comes: the peer's address, of IPv6 the network that one party has."""
    client = scope.get("client")
    text = str(client[0]) if client else "unknown"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
    return str(address)


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else MAX_BODY_BYTES + 1
    return 0


def _bounded(receive: Receive) -> Receive:
    # A body without a declared length: as much as is read is counted.
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise TooLargeError(MAX_BODY_BYTES)
        return message

    return bounded
