"""A real PostgreSQL for tests: a cluster of its own in a folder, on a free port and a Unix socket, ended with the tests.

    with postgres() as server:
        url = server.new_database()     # settings' `database.url`, over the socket
        server.kill()                   # SIGKILL to every process of it
        server.start()                  # the same data again, on the same port

The server refuses to run as root: as root it runs as the user `postgres`, which its package makes.
"""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from orchestrator.federation.ports import free_port
from orchestrator.storage.location import DatabaseSettings, Location, location_of

USER = "pht"
PASSWORD = "a password with ' and % and = in it"
_START_S = 120.0


def binaries() -> Path:
    """The newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed; `bash .ci/tools` does that")
    return found[-1].parent


@dataclass
class PostgresServer:
    """One cluster."""

    folder: Path
    port: int
    _process: "subprocess.Popen[bytes] | None" = None
    _names: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Over the socket, to the first database."""
        return self.url_of("pht")

    def url_of(self, name: str, *, tcp: bool = False) -> str:
        """What `database.url` says; over TCP the server wants the password."""
        if tcp:
            return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"
        return f"postgresql://{USER}@/{name}?host={self.folder}&port={self.port}"

    def location(self, url: str) -> Location:
        """What the programs make of a URL."""
        return location_of(DatabaseSettings(url=url), self.folder / "none")

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"pht_{len(self._names)}"
        self._names.append(name)
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}" OWNER {USER}')
        return self.url_of(name)

    def connect(self, name: str, user: str = "postgres") -> "psycopg.Connection[Any]":
        """A connection of the server's own superuser, for looking behind the scenes."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, dbname=name, user=user, autocommit=True, connect_timeout=30
        )

    def start(self) -> None:
        """Start it on its folder, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(binaries() / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
                    "-k", str(self.folder), "-h", "127.0.0.1", "-c", "fsync=off",
                    "-c", "shared_buffers=16MB", "-c", "max_connections=60",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **_as_user(),
            )  # fmt: skip
        end = time.monotonic() + _START_S
        pause = threading.Event()
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:]) from None
                pause.wait(0.05)
            else:
                return

    def kill(self) -> None:
        """SIGKILL to all of its processes, as when the machine's power fails."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # A process of a session: its own group. They end by themselves once their postmaster is gone.
        for pid in _children_of(self.folder / "data"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self._process = None

    def stop(self) -> None:
        """End it in order, with what is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_S)
            self._process = None


def _children_of(data: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if (entry / "cwd").readlink() == data:
                    found.append(int(entry.name))
    return found


def _as_user() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A fresh cluster with the database `pht` of the user `pht`, running."""
    # Not below pytest's own folder: that one is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="pht-pg-", dir="/tmp"))
    server = PostgresServer(folder, free_port())
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, grp.getgrgid(user.pw_gid).gr_gid)
        subprocess.run(
            [
                str(binaries() / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust",
                "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
            ],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", **_as_user(),
        )  # fmt: skip
        # By the socket everyone is who they say; over TCP a password is asked for.
        (folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        server.start()
        with server.connect("postgres") as connection:
            connection.execute(f"CREATE USER {USER} PASSWORD {_literal(PASSWORD)}")
            connection.execute(f"CREATE DATABASE pht OWNER {USER}")
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
