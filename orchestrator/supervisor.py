"""Starts and watches the orchestrator's processes: SuperLink, front with the API, run worker.

    supervisor ── holds the public socket and the home's lock, restarts what ends
      ├── superlink    Flower's, on loopback
      ├── front        uvicorn with TLS: Fleet routes, /api/v1
      └── worker       carries orders, writes results; has one ServerApp process per run

It holds no state of its own: after any kill, `serve` starts from the same home. Children die with it.
"""

import errno
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from orchestrator.children import Child, ChildPlan
from orchestrator.federation.ports import LOOPBACK, free_port
from orchestrator.federation.superlink import SuperLinkFiles, flower_environment, superlink_command
from orchestrator.home_lock import hold_home
from orchestrator.portal.app import API_PREFIX
from orchestrator.registry.superlink_port import read_superlink_port, write_superlink_port
from orchestrator.settings import Home, Settings, child_environment, database_location, load_settings
from orchestrator.storage import open_database
from orchestrator.storage.tenure import hold_database
from policies.documents import canonical_json
from policies.errors import UnavailableError
from policies.files import write_atomically
from policies.tls import check_certificate, client_context

_LOG = logging.getLogger(__name__)

READY_FILE = "ready"
TICK_S = 0.2
START_TIMEOUT_S = 90.0
DATABASE_PATIENCE_S = 120.0
"""How long a database that does not answer is waited for at the start; later it is waited for without end."""
STOP_TIMEOUT_S = 20.0
_BACKLOG = 1024
_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Ready:
    """Where the orchestrator answers."""

    url: str
    ca: Path
    pid: int

    def encode(self) -> bytes:
        """One JSON line."""
        return (
            canonical_json({"event": "ready", "url": self.url, "ca": str(self.ca), "pid": self.pid}) + b"\n"
        )


def serve(
    home: Home, on_ready: Callable[[Ready], None], on_wait: Callable[[str], None] = lambda _: None
) -> None:
    """Run the orchestrator until SIGTERM or SIGINT.

    1. Settings and certificate are in order.
    2. This is the only one on this home and on its database.
    3. The database is in order (only who holds it brings its tables up to date), and the port is free.
    4. The processes start; `on_ready` is called once all of them answer.

    Raises:
        SettingsError, TrustError, StateError: as 1 and 3 find.
        UsageError: another one runs on this home, or on its database.
        UnavailableError: the database does not answer, the port is in use, or a process does not come up.
    """
    # 1
    settings = load_settings(home)
    check_certificate(home.server_certificate, hint="Run `pht-orchestrator renew-certificate HOME`.")
    check_certificate(home.ca_certificate, hint="The authority must be made anew, and every party told.")
    location = database_location(home, settings)
    # 2
    with (
        hold_home(home),
        hold_database(location, patience_s=DATABASE_PATIENCE_S, waiting=on_wait) as keep_database,
    ):
        # 3
        open_database(location, patience_s=DATABASE_PATIENCE_S, waiting=on_wait).close()
        with _listener(settings) as listener, _Signals() as signals:
            children = _plan(home, settings, listener)
            (home.run / READY_FILE).unlink(missing_ok=True)
            try:
                for child in children:
                    child.start()
                # 4
                if _await_ready(home, settings, children, signals):
                    ready = Ready(settings.url, home.ca_certificate, os.getpid())
                    write_atomically(home.run / READY_FILE, ready.encode())
                    on_ready(ready)
                while not signals.wait(TICK_S):
                    keep_database()
                    for child in children:
                        child.tend()
            finally:
                (home.run / READY_FILE).unlink(missing_ok=True)
                _LOG.info("stopping")
                # The worker first: its runs are left in a state that the next start takes up.
                for child in reversed(children):
                    child.stop(STOP_TIMEOUT_S)
                _LOG.info("stopped")


class _Signals:
    """SIGTERM and SIGINT as something to wait for."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, _number: int, _frame: object) -> None:
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            return

    def wait(self, timeout_s: float) -> bool:
        """Whether one came, now or within `timeout_s`; it stays noted."""
        return bool(select.select([self._reader], [], [], timeout_s)[0])


@contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    host, port = settings.front.bind, settings.front.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # Connections of an orchestrator that was killed linger in TIME_WAIT; they must not keep the next one out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            reason = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else "cannot be used"
            raise UnavailableError(
                f"port {port} on {host} {reason}",
                hint="Stop what listens there, or set front.port in orchestrator.toml.",
            ) from error
        yield listener


def _plan(home: Home, settings: Settings, listener: socket.socket) -> list[Child]:
    files = SuperLinkFiles(home.superlink)
    files.prepare()
    port = settings.superlink.port or free_port()
    write_superlink_port(home, port)
    environment = child_environment()
    module = [sys.executable, "-m"]
    return [
        Child(
            ChildPlan(
                "superlink",
                superlink_command(files, port),
                home.logs / "superlink.out",
                flower_environment(home.superlink),
            )
        ),
        Child(
            ChildPlan(
                "front",
                [*module, "orchestrator.front", str(home.path.absolute()), str(listener.fileno())],
                home.logs / "front.out",
                environment,
                (listener.fileno(),),
            )
        ),
        Child(
            ChildPlan(
                "worker",
                [*module, "orchestrator.run_worker", str(home.path.absolute())],
                home.logs / "worker.out",
                environment,
            )
        ),
    ]


def _await_ready(home: Home, settings: Settings, children: list[Child], signals: _Signals) -> bool:
    """Wait until the API and the SuperLink behind it answer; False when told to stop before.

    Raises:
        UnavailableError: a process ended at its start, or did not answer in time.
    """
    end = time.monotonic() + START_TIMEOUT_S
    url = f"https://localhost:{settings.front.port}{API_PREFIX}/health"
    with httpx.Client(
        verify=client_context(home.ca_certificate), timeout=_PROBE_TIMEOUT_S, trust_env=False
    ) as client:
        while time.monotonic() < end:
            if signals.wait(TICK_S):
                return False
            ended = [child for child in children if not child.running]
            if ended:
                plan = ended[0].plan
                raise UnavailableError(
                    f"the {plan.name} did not start (exit status {ended[0].exit_status})",
                    hint=f"Its output is in logs/{plan.output.name}.",
                )
            if _superlink_listens(home) and _answers(client, url):
                return True
    raise UnavailableError("the orchestrator did not come up in time", hint="Look into logs/ in its home.")


def _superlink_listens(home: Home) -> bool:
    try:
        socket.create_connection((LOOPBACK, read_superlink_port(home)), timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        response = client.get(url)
        return response.status_code == 200 and json.loads(response.content).get("status") == "ok"
    except (httpx.HTTPError, ValueError):
        return False
