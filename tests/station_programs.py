"""`pht-station` as people start it: a home made by `init`, services as real processes, and how to look at them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from board_kit import BoardKit

from tests.e2e.programs import BIN, environment, run_json
from tests.e2e.programs import run as run_program

SERVICES = ("launcher", "intake", "compute")
ROOT = os.geteuid() == 0


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the services' users may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="pht-station-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Serving:
    """`pht-station serve` with its words in a file."""

    def __init__(self, home: Path, log: Path) -> None:
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [str(BIN / "pht-station"), "serve", "--home", str(home)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(),
                start_new_session=True,
            )
        self._log = log

    def await_ready(self, said_before: int) -> None:
        def ready() -> bool:
            text = self._log.read_bytes()[said_before:].decode()
            assert self.process.poll() is None, text
            return "is ready" in text

        until(ready, "the station is not ready")

    def kill(self) -> None:
        """SIGKILL the supervisor, as a power cut or the kernel's memory killer does."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 180) -> int:
        """SIGTERM, as a service manager does; returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


@dataclass
class Installed:
    """One station on disk, and its `serve` when it runs."""

    folder: Path
    home: Path
    server: Serving | None = None

    @classmethod
    def make(cls, folder: Path) -> "Installed":
        """Init as a hospital does it; the orchestrator's address leads nowhere."""
        board = BoardKit.found(folder / "board")
        (folder / "root.json").write_bytes(board.repository.root.pinnable())
        trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
        home = folder / "home"
        run_program("pht-station", *init_arguments(folder, home))
        return cls(folder, home)

    def serve(self) -> Serving:
        """Start, and wait until it says that it is ready."""
        log = self.folder / "serve.log"
        before = log.stat().st_size if log.exists() else 0
        self.server = Serving(self.home, log)
        self.server.await_ready(before)
        return self.server

    def ask(self, *arguments: object) -> Any:
        return run_json("pht-station", *arguments, "--home", self.home)

    def run(self, *arguments: object, expect: int = 0) -> str:
        return run_program("pht-station", *arguments, "--home", self.home, expect=expect)

    def services(self) -> dict[str, int]:
        """The services' processes, by name."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "station.services" in words and str(self.home) in words:
                found[words[words.index("station.services") + 1]] = int(entry.name)
        return found

    def close(self) -> None:
        if self.server is not None and self.server.process.poll() is None:
            self.server.stop()
        for pid in self.services().values():
            os.kill(pid, signal.SIGKILL)


def init_arguments(folder: Path, home: Path, *more: object) -> list[object]:
    """What an operator types."""
    return [
        "init", home, "--name", "amstel", "--orchestrator", "https://localhost:1", "--ca", folder / "ca.pem", "--root",
        folder / "root.json", "--collection", "thorax-cxr", *more,
    ]  # fmt: skip


def as_user(name: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command as one of the services' users."""
    return subprocess.run(
        [str(part) for part in command],
        user=name, group="pht-station", extra_groups=[], cwd="/", capture_output=True, text=True, timeout=300,
        env=environment(), check=False,
    )  # fmt: skip


def python_as(name: str, code: str) -> subprocess.CompletedProcess[str]:
    # Where the checkout is closed to other users, .venv is a link to a place that they may enter.
    return as_user(name, str(Path(sys.prefix).resolve() / "bin" / "python"), "-c", code)


def until(condition: Callable[[], bool], what: str, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.05)
