"""TCP links between a station and its orchestrator that are slow or break, as relays in this process.

A relay needs no rights, and TLS goes through it unseen. A link that breaks drops a connection after so many bytes, drawn at
random from a seed, and now and then stalls before it does: what a hospital's worn line and its firewalls do to a transfer. What
happens below TCP is `scale_network`'s.
"""

import asyncio
import random
import threading
from dataclasses import dataclass, field
from typing import Self

_PIECE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Quality:
    """What a link does.

    Attributes:
        bytes_per_s: each way; none: as fast as it goes.
        breaks_every: mean of the bytes after which a connection is dropped; none: never.
        stall_s: how long it is silent before every second drop.
    """

    bytes_per_s: float | None = None
    breaks_every: float | None = None
    stall_s: float = 0.0


@dataclass(slots=True)
class Carried:
    """What went over a link, TLS and all."""

    up: int = 0
    down: int = 0
    connections: int = 0
    breaks: int = 0


@dataclass
class Link:
    """A context: listens on `port` of an address of this machine, leads to `target` on loopback."""

    target: int
    quality: Quality
    seed: int = 0
    address: str = "127.0.0.1"
    carried: Carried = field(default_factory=Carried)
    port: int = 0

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._random = random.Random(self.seed)
        self._loop = asyncio.new_event_loop()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="link", daemon=True)
        self._thread.start()
        if not listening.wait(20):
            raise RuntimeError("the link does not listen")
        return self

    def __exit__(self, *_: object) -> None:
        """End, with all connections."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(listening))
        finally:
            self._loop.close()

    async def _serve(self, listening: threading.Event) -> None:
        self._over = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        # The rate is the line's, whatever the number of connections.
        self._lines = {"up": asyncio.Lock(), "down": asyncio.Lock()}
        server = await asyncio.start_server(self._accept, self.address, 0)
        self.port = int(server.sockets[0].getsockname()[1])
        listening.set()
        await self._over.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        self.carried.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        every = self.quality.breaks_every
        budget = [self._random.expovariate(1 / every) if every else float("inf")]
        ways = [
            asyncio.ensure_future(self._pump("up", reader, far_writer, budget)),
            asyncio.ensure_future(self._pump("down", far_reader, writer, budget)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (writer, far_writer):
                each.transport.abort()

    async def _pump(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[float]
    ) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if self.quality.bytes_per_s is not None:
                async with self._lines[way]:
                    await asyncio.sleep(len(data) / self.quality.bytes_per_s)
            budget[0] -= len(data)
            if budget[0] < 0:
                self.carried.breaks += 1
                if self.carried.breaks % 2:
                    await asyncio.sleep(self.quality.stall_s)
                return
            setattr(self.carried, way, getattr(self.carried, way) + len(data))
            writer.write(data)
            await writer.drain()
