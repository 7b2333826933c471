"""Passes a Fleet request on to the SuperLink on loopback: bounded, streamed back, no redirects, headers picked by hand.

Does not look into Flower's messages: the SuperLink authenticates the node. It adds one check of its own: the key that
a request shows must be of a station in the board's register, so that a station that was struck off is out at once.
"""

import base64
import binascii
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from anyio.to_thread import run_sync

from orchestrator.front.app import Receive, Scope, Send
from policies.errors import WireError
from policies.wire.http import key_fingerprint, load_public_key

_LOG = logging.getLogger(__name__)

PUBLIC_KEY_HEADER = b"flwr-public-key"
_REQUEST_HEADERS = frozenset(
    {b"content-type", b"accept", PUBLIC_KEY_HEADER, b"flwr-signature", b"flwr-timestamp"}
)
"""What passes on: nothing that could carry another API's proof (a task token, say)."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 section 7.6.1."""

_PIECE_BYTES = 256 * 1024
_CHECK_INTERVAL_S = 5.0
_MAX_KNOWN_KEYS = 10_000


@dataclass(slots=True)
class _KnownKey:
    fingerprint: str
    checked_until: float
    noted_until: float = 0.0


class FleetProxy:
    """An ASGI application for the Fleet routes.

    Args:
        port: where the SuperLink listens on loopback; asked at each connection, it may move over a restart.
        ca: the authority of its certificate.
        max_body_bytes: more than this from a station is refused.
        is_registered: whether a node key (by fingerprint) is of a station in the register.
        saw: is told, now and then, that a station spoke to us and the SuperLink accepted it.
    """

    def __init__(
        self,
        port: Callable[[], int],
        ca: Path,
        max_body_bytes: int,
        is_registered: Callable[[str], bool],
        saw: Callable[[str], None],
    ) -> None:
        self._port, self._max_body_bytes = port, max_body_bytes
        self._is_registered, self._saw = is_registered, saw
        self._known: dict[bytes, _KnownKey] = {}
        context = ssl.create_default_context(cafile=str(ca))
        self._http = httpx.AsyncClient(
            verify=context,
            timeout=httpx.Timeout(60.0, connect=5.0),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64),
            follow_redirects=False,
            trust_env=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one Fleet request."""
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        key = await self._registered_key(headers)
        if key is None:
            await _answer(send, 401)
            return
        body = await self._body(receive, headers)
        if body is None:
            await _answer(send, 413)
            return
        request = self._http.build_request(
            "POST",
            f"https://127.0.0.1:{self._port()}{scope['raw_path'].decode('ascii')}",
            content=body,
            headers=[(name, value) for name, value in headers if name in _REQUEST_HEADERS],
        )
        if await self._forward(request, send) == 200 and key.noted_until < time.monotonic():
            key.noted_until = time.monotonic() + _CHECK_INTERVAL_S
            await run_sync(self._saw, key.fingerprint)

    async def close(self) -> None:
        """Drop the connections."""
        await self._http.aclose()

    async def _forward(self, request: httpx.Request, send: Send) -> int:
        started = False
        try:
            response = await self._http.send(request, stream=True)
            try:
                await send(
                    {
                        "type": "http.response.start",
                        "status": response.status_code,
                        "headers": [
                            (name.lower(), value)
                            for name, value in response.headers.raw
                            if name.lower() not in _HOP_BY_HOP
                            and name.lower() not in {b"server", b"location"}
                        ],
                    }
                )
                started = True
                async for piece in response.aiter_raw(_PIECE_BYTES):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                await response.aclose()
            return response.status_code  # noqa: TRY300 - the status belongs to the exchange above
        except httpx.HTTPError as error:
            _LOG.warning("superlink_unreachable", extra={"kind": type(error).__name__})
            if started:
                # Half an answer cannot be taken back: breaking the connection tells the station to ask again.
                raise
            await _answer(send, 503)
            return 503

    async def _registered_key(self, headers: list[tuple[bytes, bytes]]) -> _KnownKey | None:
        shown = [value for name, value in headers if name == PUBLIC_KEY_HEADER]
        if len(shown) != 1 or len(shown[0]) > 2048:
            return None
        known = self._known.get(shown[0])
        if known is not None and known.checked_until > time.monotonic():
            return known
        try:
            fingerprint = key_fingerprint(load_public_key(base64.b64decode(shown[0], validate=True)))
        except (WireError, binascii.Error):
            return None
        if not await run_sync(self._is_registered, fingerprint):
            self._known.pop(shown[0], None)
            return None
        if len(self._known) >= _MAX_KNOWN_KEYS:
            self._known.clear()
        known = self._known.setdefault(shown[0], _KnownKey(fingerprint, 0.0))
        known.checked_until = time.monotonic() + _CHECK_INTERVAL_S
        return known

    async def _body(self, receive: Receive, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        declared = next((value for name, value in headers if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > self._max_body_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


async def _answer(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
