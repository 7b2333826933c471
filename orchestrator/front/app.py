"""What the public port answers: a closed list of Fleet routes, our API, the OCI distribution API, and 404 for all else.

Decides by exact path and method before anything else runs. The SuperLink's Control and Runtime APIs share its port
with the Fleet API and trust whoever reaches them: what is not in `FLEET_ROUTES` must not get through, in any spelling.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from orchestrator.federation.superlink import FLEET_ROUTES
from orchestrator.portal.app import API_PREFIX
from orchestrator.portal.oci.app import PREFIX as OCI_PREFIX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_NOT_FOUND = (
    b'{"type":"about:blank","status":404,"code":"NotFoundError","title":"there is no such thing here"}'
)


class Front:
    """The ASGI application of the public port."""

    def __init__(self, api: Application, fleet: Application, oci: Application) -> None:
        self._api, self._fleet, self._oci = api, fleet, oci

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._api(scope, receive, send)
            return
        if scope["type"] != "http":
            await _refuse_websocket(scope, send)
            return
        # The raw bytes of the target, so that no decoding makes one path look like another.
        raw = scope.get("raw_path") or b""
        if not raw.isascii():
            await _not_found(send)
        elif scope["method"] == "POST" and raw.decode("ascii") in FLEET_ROUTES and not scope["query_string"]:
            await self._fleet(scope, receive, send)
        elif raw.startswith(f"{API_PREFIX}/".encode()) and scope["path"].startswith(f"{API_PREFIX}/"):
            await self._api(scope, receive, send)
        elif raw.startswith(OCI_PREFIX.encode()) and scope["path"].startswith(OCI_PREFIX):
            await self._oci(scope, receive, send)
        else:
            await _not_found(send)


async def _not_found(send: Send) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(_NOT_FOUND)).encode()),
        # A body may be on its way that nobody will read.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _NOT_FOUND})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
