"""Serves a local API on a Unix socket that its owner (and root) alone can open, until SIGTERM or SIGINT."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from policies.errors import StateError, UnavailableError

_GRACE_S = 5
"""How long a caller who is being answered may hold up the end."""


class _Server(uvicorn.Server):
    """Uvicorn that leaves signals to us: its own handling ends the process before the threads could stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve_local(app: FastAPI, path: Path) -> None:
    """Answer on `path` until a signal says stop; returns then.

    Raises:
        UnavailableError: the socket cannot be made.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=_GRACE_S
    )
    server = _Server(config)

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with listening(path) as listener:
        server.run(sockets=[listener])


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket with mode 0600.

    Raises:
        UnavailableError: the socket cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"the socket {path.name} cannot be made ({error.strerror})") from error
    finally:
        os.umask(mask)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def read_token(path: Path) -> str:
    """Read the token that callers must show.

    Raises:
        StateError: it is missing or empty.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"{path.name} cannot be read", hint="Run the station's init.") from error
    if not token:
        raise StateError(f"{path.name} is empty", hint="Run the station's init.")
    return token
