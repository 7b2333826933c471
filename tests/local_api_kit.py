"""A station's local API on a real socket, served by a thread of the test."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from station.web.server import listening


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a folder for sockets: a socket's path is at most 108 bytes long."""
    with tempfile.TemporaryDirectory(prefix="api-", dir="/tmp") as name:
        yield Path(name)


@contextlib.contextmanager
def served(api: FastAPI, path: Path) -> Iterator[None]:
    """Answer on a socket until the block is left."""
    server = uvicorn.Server(uvicorn.Config(api, log_config=None, access_log=False, lifespan="off", ws="none"))
    with listening(path) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield
        server.should_exit = True
        thread.join(60)


@contextlib.contextmanager
def served_home(api: FastAPI, token: str) -> Iterator[Path]:
    """Yield a station's folder as far as the command line looks, with its API behind the socket."""
    with short_folder() as home:
        (home / "run").mkdir()
        (home / "station.toml").write_text("")
        (home / "run" / "api.token").write_text(token)
        with served(api, home / "run" / "api.sock"):
            yield home
