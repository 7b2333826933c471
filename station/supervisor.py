"""Runs the station's services as separate processes, each under a user of its own, and keeps them running.

Knows the services by name, how to start them and as whom; does none of their work. Invariants: a service that dies
is started again with a growing pause, and keeps no other waiting; the supervisor's end, however it comes, ends the services
(each asks the kernel for a signal when its parent dies, see `station.services`), and no other supervisor starts before they
are gone (they hold its lock too); nothing is started under a separation the settings ask for and the host cannot give.
"""

import contextlib
import fcntl
import grp
import logging
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from policies.errors import PhtError, SettingsError, StateError, StorageError, UnavailableError

LOG = logging.getLogger("station.supervisor")

_LOOK_S = 0.05
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0
STEADY_S = 30.0
"""A service that ran this long starts again without a pause."""
STOP_S = 20.0
LEFT_OVER_S = 45.0
"""How long the services of a supervisor that was killed may take to end."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user that a service runs as.

    Attributes:
        groups: numeric ids of its supplementary groups.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service: its name, what starts it, and as whom (None: as the supervisor itself)."""

    name: str
    arguments: tuple[str, ...]
    socket: Path
    account: Account | None


def account(name: str, extra_groups: tuple[int, ...] = ()) -> Account:
    """Look up a user of this host.

    Raises:
        SettingsError: there is no such user.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"there is no user {name} on this host",
            hint="Run `pht-station init` as root: it makes the users.",
        ) from None
    groups = {group.gr_gid for group in grp.getgrall() if name in group.gr_mem}
    return Account(name, entry.pw_uid, entry.pw_gid, tuple(sorted(groups | {entry.pw_gid, *extra_groups})))


def require_reachable(path: Path, user: Account) -> None:
    """Refuse where a service's user could not even enter a folder it needs.

    Raises:
        SettingsError: naming the first folder on the way that is closed.
    """
    for folder in reversed((path, *path.parents)):
        status = folder.stat()
        bits = status.st_mode >> 6 if status.st_uid == user.uid else status.st_mode
        bits = status.st_mode >> 3 if status.st_uid != user.uid and status.st_gid in user.groups else bits
        if folder.is_dir() and not bits & 0o1:
            raise SettingsError(
                f"the user {user.name} cannot enter {folder}",
                hint="Install the programs and put the station's folder where other users may enter (for example "
                'under /opt and /var/lib), or set separation = "none" in station.toml.',
            )


@dataclass(slots=True)
class _Child:
    spec: ServiceSpec
    process: subprocess.Popen[bytes]
    started: float
    pause_s: float = FIRST_PAUSE_S
    restarts: int = 0
    again_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Starts the services and watches them until told to stop.

    Attributes:
        home: the station's folder; `run/supervisor.lock` in it keeps a second supervisor out.
        environment: what every service starts with; nothing else of ours is passed on.
    """

    home: Path
    services: tuple[ServiceSpec, ...]
    environment: Mapping[str, str]
    _children: dict[str, _Child] = field(default_factory=dict)
    _stopping: bool = False
    _lock: int = -1

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready` once all answer, and watch until SIGTERM or SIGINT.

        Raises:
            StateError: another supervisor runs on this folder.
            UnavailableError: a service does not come up.
        """
        with self._only_one():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._end)
            try:
                for spec in self.services:
                    self._start(spec)
                self._await_ready(60.0)
                if not self._stopping:
                    on_ready()
                while not self._stopping:
                    time.sleep(_LOOK_S)
                    self._revive()
            finally:
                self._stop_all()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        # A flag and nothing else: a lock taken in a signal handler may be held by what it interrupted.
        self._stopping = True

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        try:
            self._lock = os.open(
                self.home / "run" / "supervisor.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StateError(
                f"this user cannot serve the station ({error.strerror})",
                hint="Serve it as the user who made it (root, with separation).",
            ) from error
        try:
            self._take_lock()
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(self._lock)

    def _take_lock(self) -> None:
        deadline = time.monotonic() + LEFT_OVER_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The services inherit the lock: those of a supervisor that was killed may still be ending.
                if self._holder_lives() or time.monotonic() > deadline:
                    raise StateError(
                        "this station is already being served",
                        hint="Stop the other `pht-station serve` first.",
                    ) from None
                time.sleep(_LOOK_S)
            else:
                return

    def _holder_lives(self) -> bool:
        written = os.pread(self._lock, 32, 0)
        try:
            os.kill(int(written), 0)
        except (ValueError, ProcessLookupError):
            return False
        except PermissionError:
            return True
        return True

    def _start(self, spec: ServiceSpec, before: _Child | None = None) -> None:
        user = spec.account
        try:
            spec.socket.unlink(missing_ok=True)
            log = (self.home / "logs" / f"{spec.name}.log").open("ab")
        except OSError as error:
            raise StorageError(
                f"the service {spec.name} cannot be started: its log or socket cannot be made ({error.strerror})",
                hint="Look at the free space and at who owns the station's folder.",
            ) from error
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "station.services", *spec.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**self.environment, "PHT_SUPERVISOR": str(os.getpid())},
                start_new_session=True,
                pass_fds=(self._lock,),
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=list(user.groups) if user else None,
                umask=0o027,
            )
        child = _Child(spec, process, time.monotonic())
        if before:
            child.pause_s = min(before.pause_s * 2, LONGEST_PAUSE_S)
            child.restarts = before.restarts + 1
        self._children[spec.name] = child
        LOG.info(
            "service.started", extra={"service": spec.name, "pid": process.pid, "restarts": child.restarts}
        )

    def _await_ready(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        for spec in self.services:
            while not self._stopping and not answers(spec.socket):
                code = self._children[spec.name].process.poll()
                if code is not None or time.monotonic() > deadline:
                    raise UnavailableError(
                        f"the service {spec.name} did not start"
                        + (f" (exit {code})" if code is not None else ""),
                        hint=f"Its log is {self.home / 'logs' / (spec.name + '.log')}.",
                    )
                time.sleep(_LOOK_S)

    def _revive(self) -> None:
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.again_at is None:
                code = child.process.poll()
                if code is None:
                    continue
                LOG.warning("service.died", extra={"service": child.spec.name, "exit_code": code})
                if now - child.started > STEADY_S:
                    child.pause_s = FIRST_PAUSE_S
                child.again_at = now + child.pause_s
            if now >= child.again_at and not self._stopping:
                try:
                    self._start(child.spec, child)
                except (PhtError, OSError):
                    LOG.exception("service.not_started", extra={"service": child.spec.name})
                    child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_S)
                    child.again_at = now + child.pause_s

    def _stop_all(self) -> None:
        # The last started first: compute says goodbye to its containers while the launcher still answers.
        for child in reversed(self._children.values()):
            if child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()


def answers(path: Path) -> bool:
    """Whether something listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
