"""A station's question for messages goes to the SuperLink when there may be one, and no oftener; a few requests at once."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.federation.doorbells import Doorbells
from orchestrator.federation.superlink import SuperLinkFiles
from orchestrator.front.app import Receive, Scope, Send
from orchestrator.front.fleet_proxy import AT_ONCE, BODY_S, MAX_ANSWER_BYTES, FleetProxy
from orchestrator.front.polls import PULL_ROUTE, HeldPolls
from orchestrator.front.roster import Roster
from policies.wire.http import key_fingerprint, openssh_public_key

NODE = 7
KEY = ec.generate_private_key(ec.SECP256R1())
OTHERS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(AT_ONCE)]
"""Other stations: what waits in the register's name of one only is bounded (`test_front_floods.py`)."""

CONFIRM = "/v1/fleet/confirm-message-received"


@dataclass
class StandInSuperLink:
    """Answers what it is told to, and counts."""

    body: bytes = b""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    wait: "asyncio.Event | None" = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.asked.append(scope["path"])
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        if self.wait is not None:
            await self.wait.wait()
        self.at_once -= 1
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"x-flower", b"1")]})
        await send({"type": "http.response.body", "body": self.body})


@dataclass
class Behind:
    """A proxy before a stand-in SuperLink, and its station's client."""

    superlink: StandInSuperLink
    bells: Doorbells
    http: httpx.AsyncClient

    async def poll(
        self,
        *,
        age_s: float = 0.0,
        signed: bool = True,
        to: str = PULL_ROUTE,
        key: ec.EllipticCurvePrivateKey = KEY,
        body: bytes | AsyncIterator[bytes] = b"node",
    ) -> httpx.Response:
        moment = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat().encode()
        signature = key.sign(moment if signed else b"another moment", ec.ECDSA(hashes.SHA256()))
        headers = {
            "flwr-public-key": base64.b64encode(openssh_public_key(key.public_key())).decode(),
            "flwr-timestamp": moment.decode(),
            "flwr-signature": base64.b64encode(signature).decode(),
        }
        return await self.http.post(to, content=body, headers=headers)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


@asynccontextmanager
async def behind(folder: Path, hold_s: float = 0.05, body_s: float = BODY_S) -> AsyncIterator[Behind]:
    files, superlink = SuperLinkFiles(folder), StandInSuperLink()
    files.prepare()
    server = uvicorn.Server(
        uvicorn.Config(
            superlink,
            port=0,
            lifespan="off",
            log_config=None,
            ws="none",
            ssl_certfile=str(files.certificate),
            ssl_keyfile=str(files.key),
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    polls = HeldPolls(files.doorbells, lambda: {key_fingerprint(KEY.public_key()): NODE}, hold_s, 3600.0)
    keys = frozenset(key_fingerprint(key.public_key()) for key in (KEY, *OTHERS))
    proxy = FleetProxy(lambda: port, files.ca, 1 << 20, Roster(lambda: keys), lambda _: None, polls, body_s)
    transport = httpx.ASGITransport(proxy)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="https://front") as http:
            yield Behind(superlink, files.doorbells, http)
    finally:
        await proxy.close()
        server.should_exit = True
        await serving


def run(
    folder: Path, act: Callable[[Behind], Awaitable[None]], hold_s: float = 0.05, body_s: float = BODY_S
) -> None:
    async def within() -> None:
        async with behind(folder, hold_s, body_s) as found, asyncio.timeout(120):
            await act(found)

    asyncio.run(within())


def test_what_has_nothing_new_is_asked_once(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        first = await found.poll()
        later = [await found.poll() for _ in range(3)]
        assert [(each.status_code, each.content) for each in later] == [(200, b"")] * 3
        assert all(each.headers["x-flower"] == first.headers["x-flower"] for each in later)
        assert len(found.superlink.asked) == 1

    run(tmp_path, act)


def test_a_ring_brings_the_message_also_to_a_question_that_is_held(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        await found.poll()
        held = asyncio.create_task(found.poll())
        await asyncio.sleep(0)
        found.superlink.body = b"message"
        found.bells.ring([NODE])
        # It would be held for an hour.
        assert (await held).content == b"message"
        # There may be another one.
        assert (await found.poll()).content == b"message"
        assert len(found.superlink.asked) == 3

    run(tmp_path, act, hold_s=3600.0)


def test_another_node_s_bell_is_not_ours(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        await found.poll()
        found.bells.ring([NODE + 1])
        await found.poll()
        assert len(found.superlink.asked) == 1

    run(tmp_path, act)


def test_a_ring_while_the_superlink_is_asked_is_not_lost(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        found.superlink.wait = asyncio.Event()
        asking = asyncio.create_task(found.poll())
        await until(lambda: bool(found.superlink.asked))
        found.bells.ring([NODE])
        found.superlink.wait.set()
        await asking
        await found.poll()
        assert len(found.superlink.asked) == 2

    run(tmp_path, act)


def test_a_refusal_is_not_repeated_from_memory(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        found.superlink.status = 503
        assert (await found.poll()).status_code == 503
        found.superlink.status = 200
        assert (await found.poll()).status_code == 200
        assert len(found.superlink.asked) == 2

    run(tmp_path, act)


def test_the_superlink_has_a_few_requests_at_once(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        found.superlink.wait = asyncio.Event()
        asking = [asyncio.create_task(found.poll(to=CONFIRM, key=key)) for key in OTHERS for _ in range(5)]
        await until(lambda: found.superlink.at_once >= AT_ONCE)
        found.superlink.wait.set()
        assert {(await each).status_code for each in asking} == {200}
        assert len(found.superlink.asked) == 5 * AT_ONCE
        assert found.superlink.most_at_once == AT_ONCE

    run(tmp_path, act)


def test_a_heartbeat_waits_for_no_other_request(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        found.superlink.wait = asyncio.Event()
        asking = [asyncio.create_task(found.poll(to=CONFIRM, key=key)) for key in OTHERS for _ in range(3)]
        await until(lambda: found.superlink.at_once >= AT_ONCE)
        beat = asyncio.create_task(found.poll(to="/v1/fleet/send-node-heartbeat"))
        await until(lambda: "/v1/fleet/send-node-heartbeat" in found.superlink.asked)
        found.superlink.wait.set()
        assert {(await each).status_code for each in [beat, *asking]} == {200}

    run(tmp_path, act)


def test_an_answer_without_end_is_not_kept(tmp_path: Path) -> None:
    async def act(found: Behind) -> None:
        found.superlink.body = bytes(MAX_ANSWER_BYTES + 1)
        assert (await found.poll()).status_code == 503

    run(tmp_path, act)
