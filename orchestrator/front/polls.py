"""Answers a station that asks for messages when there are none, without asking the SuperLink again.

A hundred stations that ask twice a second are most of what a SuperLink does, and each of those questions takes its
database's one write lock. What the SuperLink said last, that there was nothing, is still true until somebody pushes a
message for that node: `Doorbells` says when. Until then the question is held for a moment and the same answer given.

Only a question that the node signed comes so far (`fleet_proxy.py`). Whatever is not known goes to the SuperLink: this
spares work, it decides nothing.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from anyio.to_thread import run_sync
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.federation.doorbells import Doorbells
from policies.errors import PhtError

PULL_ROUTE = "/v1/fleet/pull-messages"
HOLD_S = 1.0
"""A station that is told to stop waits for its question at most so long."""

ASK_ANYWAY_S = 10.0
"""A ring that was lost, or a message that nobody of ours pushed, is found after so long."""

_LOOK_S = 0.02
_NODES_S = 5.0
_MAX_AGE_S, _MAX_AHEAD_S = 305.0, 5.0
"""What Flower's own check allows (flwr 1.41.0: `TIMESTAMP_TOLERANCE`, `SYSTEM_TIME_TOLERANCE`)."""


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """What the SuperLink said."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(slots=True)
class _Quiet:
    rings: int
    asked: float
    answer: FleetAnswer


@dataclass(slots=True)
class HeldPolls:
    """What is known of messages that wait.

    Attributes:
        bells: rung by whoever pushes.
        read_nodes: the registered stations: fingerprint of the node key to Flower's node id.
        hold_s: how long a question is held.
        ask_anyway_s: after so long the SuperLink is asked in any case.
    """

    bells: Doorbells
    read_nodes: Callable[[], Mapping[str, int]]
    hold_s: float = HOLD_S
    ask_anyway_s: float = ASK_ANYWAY_S
    _nodes: Mapping[str, int] = field(default_factory=dict)
    _nodes_until: float = 0.0
    _quiet: dict[str, _Quiet] = field(default_factory=dict)
    _rang: asyncio.Event = field(default_factory=asyncio.Event)
    _looking: "asyncio.Task[None] | None" = None
    _waiting: int = 0

    async def rings(self, fingerprint: str) -> int | None:
        """How often the station's bell rang until now; None where its node is not known."""
        if time.monotonic() >= self._nodes_until:
            self._nodes_until = time.monotonic() + _NODES_S
            with suppress(PhtError):
                # While the register cannot be read, what was read last holds.
                self._nodes = await run_sync(self.read_nodes)
        node_id = self._nodes.get(fingerprint)
        return None if node_id is None else self.bells.rings(node_id)

    async def still_nothing(self, fingerprint: str) -> FleetAnswer | None:
        """Wait a moment for the bell; the SuperLink's last answer where it did not ring, None where it is to be asked."""
        end = time.monotonic() + self.hold_s
        self._waiting += 1
        try:
            while (quiet := self._quiet.get(fingerprint)) is not None:
                # Who looks begins before the bell is looked at: a ring in between wakes us.
                rang, now = self._watched(), time.monotonic()
                if await self.rings(fingerprint) != quiet.rings or now - quiet.asked >= self.ask_anyway_s:
                    return None
                if now >= end:
                    return quiet.answer
                with suppress(TimeoutError):
                    async with asyncio.timeout(end - now):
                        await rang.wait()
        finally:
            self._waiting -= 1
        return None

    def learned(self, fingerprint: str, rings: int | None, answer: FleetAnswer) -> None:
        """Take note of what the SuperLink answered, and of how often the bell had rung before it was asked."""
        if rings is None or answer.status != 200 or answer.body:
            self._quiet.pop(fingerprint, None)
        else:
            self._quiet[fingerprint] = _Quiet(rings, time.monotonic(), answer)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()

    def _watched(self) -> asyncio.Event:
        """What is set at the next ring of any bell."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(self.bells.all_rings()))
        return self._rang

    async def _look(self, seen: int) -> None:
        """Look for rings as long as anybody waits: one for all of them."""
        while self._waiting:
            await asyncio.sleep(_LOOK_S)
            if (now := self.bells.all_rings()) != seen:
                seen = now
                self._rang.set()
                self._rang = asyncio.Event()


def is_signed(headers: Mapping[bytes, bytes], key: ec.EllipticCurvePublicKey) -> bool:
    """Whether the node with this key signed the request a moment ago, as the SuperLink would check it (flwr 1.41.0, `node_auth.py`)."""
    try:
        moment = headers[b"flwr-timestamp"]
        signature = base64.b64decode(headers[b"flwr-signature"], validate=True)
        signed_at = datetime.fromisoformat(moment.decode("ascii"))
        age_s = (datetime.now(UTC) - signed_at).total_seconds()
        key.verify(signature, moment, ec.ECDSA(hashes.SHA256()))
    except (KeyError, ValueError, TypeError, OverflowError, binascii.Error, InvalidSignature):
        return False
    return -_MAX_AHEAD_S < age_s < _MAX_AGE_S
