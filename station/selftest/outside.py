"""What this host sees of an attack: who came to its listeners, what was kept of a train's output, whether a dump lies somewhere."""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from policies.errors import PhtError
from station.sandbox import unix
from station.sandbox.engine.api import Engine
from station.sandbox.session import SOCKET_NAME
from station.sandbox.spec import MIB, ExitClass, Launcher, LauncherSettings, TrainFailure, TrainReply
from station.selftest import judging
from station.selftest.ground import Ground
from station.selftest.report import Attempt

_KEPT_OUTPUT: Final = 3 * MIB
_HELLO: Final = b'{"interface":"flower","protocol":1,"type":"hello"}'
_WAIT_S: Final = 60.0
_DUMPS: Final = (
    "/var/lib/systemd/coredump",
    "/var/crash",
    "/var/lib/apport/coredump",
    "/var/spool/abrt",
    "/cores",
)


class Settled(Protocol):
    """Where the hostile train runs."""

    @property
    def settings(self) -> LauncherSettings:
        """The launcher's settings."""
        ...

    @property
    def launcher(self) -> Launcher:
        """The launcher."""
        ...


def look(what: str, ground: Ground) -> Mapping[str, int]:
    """Return how things are before an attack."""
    if what == "listeners":
        return {"reached": len(ground.reached)}
    if what == "dumps":
        return {str(path): 1 for path in _dumps()}
    return {}


def judge(
    what: str, before: Mapping[str, int], ground: Ground, place: Settled, container_id: str
) -> tuple[Attempt, ...]:
    """Return what an attack did to this host, from how things are now."""
    if what == "listeners":
        came = ground.reached[before["reached"] :]
        tried = "be seen at a listener of this host"
        return (judging.got(tried, ", ".join(came)) if came else judging.stopped(tried, "nobody came"),)
    if what == "log":
        return (_kept_output(place, container_id),)
    if what == "dumps":
        new = [path for path in _dumps() if str(path) not in before]
        tried = "leave its memory on this host's disk"
        return (
            judging.got(tried, f"{len(new)} new dumps")
            if new
            else judging.stopped(tried, "no dump was kept"),
        )
    return ()


def _dumps() -> list[Path]:
    found: list[Path] = []
    for folder in _DUMPS:
        try:
            found += list(Path(folder).iterdir())
        except OSError:
            continue
    return found


def _kept_output(place: Settled, container_id: str) -> Attempt:
    """Measure the log's files where they can be seen; else ask the launcher, which shows the end alone."""
    tried = "fill this host's disk with its output"
    try:
        facts = Engine(place.settings.engine_socket).container(container_id) or {}
        log = Path(str(facts.get("LogPath") or "/nonexistent"))
        size = sum(each.stat().st_size for each in log.parent.glob(log.name + "*"))
    except (PhtError, OSError):
        return judging.skipped(tried, "the engine's folder cannot be seen by who runs this; run it as root")
    if size == 0:
        return judging.skipped(tried, "the engine's folder cannot be seen by who runs this; run it as root")
    words = f"{size / MIB:.1f} MiB are kept"
    return judging.stopped(tried, words) if size <= _KEPT_OUTPUT else judging.got(tried, words)


def of_wall_clock(tried: str, outcome: TrainReply | TrainFailure, *, timed_out: bool) -> tuple[Attempt, ...]:
    """Judge a train that outlives its run: the launcher must have killed it, with no help from the session."""
    if isinstance(outcome, TrainFailure) and outcome.exit_class is ExitClass.TIMEOUT and timed_out:
        return (judging.stopped(tried, f"killed by the launcher: {outcome.detail}"),)
    return (judging.got(tried, "the launcher did not end it"),)


@dataclass
class Strangers:
    """A program of this host that connects to a train's control socket before the train does.

    Attributes:
        control: the folder with the socket.
        heard: what the station said to it.
        served: whether the train was served all the same.
    """

    control: Path
    heard: bytes | None = None
    served: bool = False
    problem: str = ""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_how: object) -> None:
        self.wait()

    def wait(self) -> None:
        """Wait until it has been turned away."""
        self._thread.join(_WAIT_S)

    def _connect(self) -> None:
        deadline = time.monotonic() + _WAIT_S
        pause = threading.Event()
        while time.monotonic() < deadline:
            try:
                with unix.connect(self.control / SOCKET_NAME, timeout_s=_WAIT_S) as sock:
                    sock.sendall(b"PHT1" + len(_HELLO).to_bytes(4, "big") + bytes(8) + _HELLO)
                    sock.settimeout(_WAIT_S)
                    self.heard = sock.recv(65536)
            except FileNotFoundError:
                pause.wait(0.001)
                continue
            except (TimeoutError, ConnectionError) as error:
                self.heard, self.problem = b"", type(error).__name__
            return


def strangers(tried: str, seen: Strangers) -> tuple[Attempt, ...]:
    """Judge whether a stranger was spoken to, and whether the train was served beside it."""
    if seen.heard is None:
        return (judging.skipped(tried, "no program of this host could connect before the train did"),)
    if seen.heard:
        return (judging.got(tried, "the station spoke to it"),)
    if not seen.served:
        return (judging.got("keep the train from being served", "the train was not served"),)
    return (judging.stopped(tried, "its connection was closed; the train's own was served"),)


def give(folder: Path, owner: tuple[int, int]) -> None:
    """Give a folder with all in it to the user whom the launcher expects."""
    for root, _folders, files in os.walk(folder):
        os.chown(root, *owner)
        for name in files:
            os.chown(Path(root, name), *owner)


def why_no_gpu(launcher: Launcher) -> str:
    """Return why there is no GPU to look into, or nothing."""
    report = launcher.gpus()
    if not report.devices:
        return "no GPU here"
    return "" if report.leasable_mib else "no GPU of this host is leased to trains"


def of_gpu(tried: str, marked: tuple[Attempt, ...], found: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Return what came of two trains on one device; where the first left no mark, nothing was tried.

    Args:
        tried: the attack, in words.
        marked: of the train that left its mark: that it could is no failure of the station's.
        found: of the one after it.
    """
    if not marked or any("MiB are marked" not in each.what for each in marked):
        told = "; ".join(each.what for each in marked) or "it tells nothing"
        return (judging.got(tried, f"no mark could be left to look for ({told})"),)
    return found
