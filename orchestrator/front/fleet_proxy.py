"""Passes a Fleet request on to the SuperLink on loopback: bounded, a few at once, no redirects, headers picked by hand.

Does not look into Flower's messages: the SuperLink authenticates the node. Before a body is read and a place taken, a
request must show the key of a station in the board's register, so that a station that was struck off is out at once,
and be signed with it, as the SuperLink would check it: a node's public key alone gets nobody any further.
"""

import asyncio
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
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.front.app import Receive, Scope, Send
from orchestrator.front.fleet_places import FleetPlaces
from orchestrator.front.polls import PULL_ROUTE, FleetAnswer, HeldPolls, is_signed
from orchestrator.front.roster import Roster
from policies.errors import StorageError, UnavailableError, WireError
from policies.wire.http import key_fingerprint, load_public_key

_LOG = logging.getLogger(__name__)

PUBLIC_KEY_HEADER = b"flwr-public-key"
_PROOF_HEADERS = frozenset({PUBLIC_KEY_HEADER, b"flwr-signature", b"flwr-timestamp"})
_REQUEST_HEADERS = _PROOF_HEADERS | {b"content-type", b"accept"}
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

AT_ONCE = 4
"""Requests that the SuperLink has at once. Each takes its database's one write lock: more of them only wait for it, in
SQLite's growing naps and with its pool of 15 connections used up."""

_HEARTBEAT_ROUTE = "/v1/fleet/send-node-heartbeat"
"""Has a place of its own: behind a queue of other requests it would come late, and a node that works count as offline."""

MAX_ANSWER_BYTES = 4 << 20
"""An instruction with inline weights is below a MiB."""

BODY_S = 120.0
"""For a whole body: 4 MiB at 280 kbit/s, and an answer with inline weights at a quarter of that."""

RETRY_AFTER_S = 1

_NOTE_INTERVAL_S = 30.0
"""Each note that a station was seen is a synced transaction."""

_MAX_KNOWN_KEYS = 10_000


@dataclass(slots=True)
class _KnownKey:
    fingerprint: str
    public: ec.EllipticCurvePublicKey
    noted_until: float = 0.0


class FleetProxy:
    """An ASGI application for the Fleet routes.

    Args:
        port: where the SuperLink listens on loopback; asked at each connection, it may move over a restart.
        ca: the authority of its certificate.
        max_body_bytes: more than this from a station is refused.
        roster: which node keys are of stations in the register.
        saw: is told, now and then, that a station spoke to us and the SuperLink accepted it.
        polls: what is known of messages that wait.
        body_s: how long a body may take to come.
    """

    def __init__(
        self,
        port: Callable[[], int],
        ca: Path,
        max_body_bytes: int,
        roster: Roster,
        saw: Callable[[str], None],
        polls: HeldPolls,
        body_s: float = BODY_S,
    ) -> None:
        self._port, self._max_body_bytes, self._body_s = port, max_body_bytes, body_s
        self._roster, self._saw = roster, saw
        self._polls = polls
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._heartbeats = asyncio.Semaphore(1)
        self._places = FleetPlaces(max_body_bytes)
        self._known: dict[bytes, _KnownKey] = {}
        context = ssl.create_default_context(cafile=str(ca))
        self._http = httpx.AsyncClient(
            verify=context,
            timeout=httpx.Timeout(60.0, connect=5.0),
            limits=httpx.Limits(max_connections=AT_ONCE + 1, max_keepalive_connections=AT_ONCE + 1),
            follow_redirects=False,
            trust_env=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one Fleet request."""
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        try:
            key = await self._registered_key(headers)
        except (UnavailableError, StorageError) as error:
            # Who is registered cannot be asked now: nobody gets through, and stations ask again.
            _LOG.warning("register_unreachable", extra={"code": type(error).__name__})
            await _answer(send, 503)
            return
        if key is None or not _is_signed(headers, key):
            await _answer(send, 401)
            return
        size = self._declared(headers)
        if size is None:
            await _answer(send, 413)
            return
        heartbeat = scope["raw_path"] == _HEARTBEAT_ROUTE.encode()
        with self._places.entered(key.fingerprint, size, heartbeat=heartbeat) as queue:
            if queue is None:
                await _answer(send, 503, (b"retry-after", str(RETRY_AFTER_S).encode()))
                return
            await self._carry(scope, receive, send, headers, key, queue)

    async def close(self) -> None:
        """Drop the connections."""
        await self._polls.close()
        await self._http.aclose()

    async def _carry(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        key: _KnownKey,
        queue: asyncio.Semaphore,
    ) -> None:
        try:
            async with asyncio.timeout(self._body_s):
                body = await self._body(receive)
        except TimeoutError:
            await _answer(send, 408)
            return
        if body is None:
            await _answer(send, 413)
            return
        route = scope["raw_path"].decode("ascii")
        # Whoever is held stands in no queue.
        answer = await self._polls.still_nothing(key.fingerprint) if route == PULL_ROUTE else None
        if answer is None:
            async with queue:
                answer = await self._ask(route, headers, body, key)
        if answer is None:
            await _answer(send, 503)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": answer.body})
        if answer.status == 200:
            await self._note(key)

    async def _ask(
        self, route: str, headers: list[tuple[bytes, bytes]], body: bytes, key: _KnownKey
    ) -> FleetAnswer | None:
        request = self._http.build_request(
            "POST",
            f"https://127.0.0.1:{self._port()}{route}",
            content=body,
            headers=[(name, value) for name, value in headers if name in _REQUEST_HEADERS],
        )
        # Before it is asked: a ring that comes meanwhile is news.
        rings = await self._polls.rings(key.fingerprint) if route == PULL_ROUTE else None
        async with self._heartbeats if route == _HEARTBEAT_ROUTE else self._gate:
            answer = await self._forward(request)
        if route == PULL_ROUTE and answer is not None:
            self._polls.learned(key.fingerprint, rings, answer)
        return answer

    async def _forward(self, request: httpx.Request) -> FleetAnswer | None:
        """The whole answer, so that a slow station holds nobody's place; None where there is none of use."""
        try:
            response = await self._http.send(request, stream=True)
            try:
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        _LOG.warning("superlink_answer_too_large")
                        return None
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            _LOG.warning("superlink_unreachable", extra={"kind": type(error).__name__})
            return None
        kept = [
            (name.lower(), value)
            for name, value in response.headers.raw
            if name.lower() not in _HOP_BY_HOP and name.lower() not in {b"server", b"location"}
        ]
        return FleetAnswer(response.status_code, tuple(kept), bytes(body))

    async def _note(self, key: _KnownKey) -> None:
        if key.noted_until >= time.monotonic():
            return
        key.noted_until = time.monotonic() + _NOTE_INTERVAL_S
        try:
            await run_sync(self._saw, key.fingerprint)
        except (UnavailableError, StorageError) as error:
            _LOG.warning("last_seen_not_noted", extra={"code": type(error).__name__})

    async def _registered_key(self, headers: list[tuple[bytes, bytes]]) -> _KnownKey | None:
        shown = [value for name, value in headers if name == PUBLIC_KEY_HEADER]
        if len(shown) != 1 or len(shown[0]) > 2048:
            return None
        known = self._known.get(shown[0])
        if known is None:
            try:
                public = load_public_key(base64.b64decode(shown[0], validate=True))
            except (WireError, binascii.Error):
                return None
            known = _KnownKey(key_fingerprint(public), public)
        if not await self._roster.has(known.fingerprint):
            self._known.pop(shown[0], None)
            return None
        if len(self._known) >= _MAX_KNOWN_KEYS:
            self._known.clear()
        return self._known.setdefault(shown[0], known)

    def _declared(self, headers: list[tuple[bytes, bytes]]) -> int | None:
        """How large the body is at most; None where that is too much."""
        declared = next((value for name, value in headers if name == b"content-length"), None)
        if declared is None:
            return self._max_body_bytes
        if not declared.isdigit() or len(declared) > 20 or int(declared) > self._max_body_bytes:
            return None
        return int(declared)

    async def _body(self, receive: Receive) -> bytes | None:
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


def _is_signed(headers: list[tuple[bytes, bytes]], key: _KnownKey) -> bool:
    """Each header of the proof once, so that the SuperLink reads the same ones."""
    proof = [(name, value) for name, value in headers if name in _PROOF_HEADERS]
    return len(proof) == len(_PROOF_HEADERS) and is_signed(dict(proof), key.public)


async def _answer(send: Send, status: int, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
