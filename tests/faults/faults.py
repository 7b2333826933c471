"""The faults: each finds its victim at its instant, does it, and puts right what does not get right by itself."""

import contextlib
import errno
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from station.sandbox.engine.hardening import LABEL_STATION
from tests.faults.schedule import Fault
from tests.faults.topology import STATIONS, Site, processes, until

VICTIM_S = 60.0
"""How long a fault waits for somebody to be hit: between two runs there is no ServerApp."""


class NoVictimError(Exception):
    """Nobody came who could be hit."""


def find(site: Site, who: str, station: str) -> list[int]:
    """The processes of that role, newest last."""
    home = str(site.hospital(station).home) if station else str(site.orchestrator)
    if who in {"orchestrator", "engine", "database", "witness", "station"}:
        pid = site.units[station or who].pid
        return [] if pid is None else [pid]
    modules = {
        "serverapp": "orchestrator.federation",
        "front": "orchestrator.front",
        "worker": "orchestrator.run_worker",
    }
    found = []
    for pid, words in processes():
        if who == "superlink":
            hit = any(word.endswith("flower-superlink") for word in words[:2])
        elif who in modules:
            hit = modules[who] in words and any(word.startswith(home) for word in words)
        else:
            hit = "station.services" in words and who in words and home in words
        if hit:
            found.append(pid)
    return sorted(found)


def strike(site: Site, fault: Fault, chance: random.Random) -> Callable[[], None]:
    """Do a fault; returns what puts it right, which waits until its seconds are over.

    Raises:
        NoVictimError: there was nobody to hit.
    """
    what, who = fault.kind.split(" ")
    if what == "kill":
        (_kill_container if who == "container" else _kill)(site, who, fault.station, chance)
        return lambda: None
    lasting: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "cut": lambda: _cut(site, fault.station),
        "fill": lambda: _fill(site.disk(fault.station or "orchestrator")),
        "freeze": lambda: _frozen(_victim(site, who, fault.station, chance)),
        "clock": lambda: site.clocks.stepped(fault.station or "orchestrator", fault.step_s),
    }
    leaving = contextlib.ExitStack()
    leaving.enter_context(lasting[what]())
    over = time.monotonic() + fault.seconds

    def put_right() -> None:
        threading.Event().wait(max(0.0, over - time.monotonic()))
        leaving.close()

    return put_right


def _victim(site: Site, who: str, station: str, chance: random.Random) -> int:
    found: list[int] = []

    def there() -> bool:
        found[:] = find(site, who, station)
        return bool(found)

    if not until(there, VICTIM_S):
        raise NoVictimError(who)
    return chance.choice(found)


def _kill(site: Site, who: str, station: str, chance: random.Random) -> None:
    deadline = time.monotonic() + VICTIM_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_victim(site, who, station, chance), signal.SIGKILL)
            return
    raise NoVictimError(who)


def _kill_container(site: Site, _who: str, station: str, chance: random.Random) -> None:
    """SIGKILL the first process of a train's container."""

    def there() -> list[str]:
        return site.docker("ps", "-q", "--no-trunc", "--filter", f"label={LABEL_STATION}={station}").split()

    if not until(there, VICTIM_S, 0.3):
        raise NoVictimError("container")
    for name in there():
        if site.docker("kill", name):
            return
    raise NoVictimError("container")


@contextmanager
def _cut(site: Site, station: str) -> Iterator[None]:
    stations = (station,) if station else STATIONS
    site.network.pull(*stations)
    try:
        yield
    finally:
        site.network.plug(*stations)


@contextmanager
def _fill(disk: Path) -> Iterator[None]:
    """Not a byte is left on the disk; and none comes free while something else removes files, for as long as it lasts."""
    # A name of its own: a disk may be filled twice at once.
    descriptor, name = tempfile.mkstemp(prefix="ballast-", dir=disk)
    ballast, over = Path(name), threading.Event()

    def fill() -> None:
        while not over.is_set():
            for block in (1 << 22, 1 << 16, 1 << 12):
                _write_all(descriptor, bytes(block), over)
            over.wait(0.05)

    filling = threading.Thread(target=fill, daemon=True)
    filling.start()
    try:
        until(lambda: os.statvfs(disk).f_bavail == 0, 60)
        yield
    finally:
        over.set()
        filling.join()
        os.close(descriptor)
        ballast.unlink()


def _write_all(descriptor: int, block: bytes, over: threading.Event) -> None:
    while not over.is_set():
        try:
            os.write(descriptor, block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
