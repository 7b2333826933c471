"""Runs the four programs as people would: command lines, exit codes, JSON on stdout; servers until they are ready."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix).resolve() / "bin"
GENTLE_S = 110.0
"""For so long a program that started others may take them down; whoever stops all tests waits two minutes."""


class ProgramError(AssertionError):
    """A program ended with another exit code than was expected."""

    def __init__(self, command: Sequence[str], code: int, stdout: str, stderr: str) -> None:
        shown = " ".join(Path(part).name if part.startswith("/") else part for part in command)
        super().__init__(f"`{shown}` ended with exit code {code}\n{stdout[-2000:]}\n{stderr[-4000:]}")
        self.code = code


def environment() -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PHT_")},
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "COLUMNS": "120",
    }


def run(program: str, *arguments: object, expect: int = 0, timeout_s: float = 600) -> str:
    """Run one command line and return its stdout; another exit code than `expect` is an error."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False
    )
    if done.returncode != expect:
        raise ProgramError(command, done.returncode, done.stdout, done.stderr)
    return done.stdout if expect == 0 else done.stderr


def run_to_its_end(
    arguments: Sequence[str], timeout_s: float, *, stderr: int
) -> "subprocess.CompletedProcess[str]":
    """Run one of our own modules, which starts servers: where it is not waited for any more it stops them before it is killed.

    (`subprocess.run` kills after a quarter of a second, and what had sessions of their own would go on for ever.)

    Args:
        arguments: of the interpreter.
        timeout_s: it may take.
        stderr: `subprocess.PIPE`, or `subprocess.STDOUT` where it belongs to the rest.
    """
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            stdout, said = process.communicate(timeout=timeout_s)
        except BaseException as error:
            # A keyboard's signal reaches the whole group; told twice, it would leave its taking down undone.
            if not isinstance(error, KeyboardInterrupt):
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GENTLE_S)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, said)


def run_json(program: str, *arguments: object, timeout_s: float = 600) -> Any:
    """Run one command line with --json and return what it printed."""
    return json.loads(run(program, *arguments, "--json", timeout_s=timeout_s))


def refused(program: str, *arguments: object) -> str:
    """Run one command line that must end in a refusal, and return the refusal's code."""
    error = json.loads(run(program, *arguments, "--json", expect=4).strip().splitlines()[-1])["error"]
    return str(error["code"])


class Server:
    """A program that runs until it is stopped or killed."""

    def __init__(self, log: Path, program: str, *arguments: object, ready: str) -> None:
        self._log = log
        self._command = [str(BIN / program), *map(str, arguments)]
        self._ready = ready
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, timeout_s: float = 600) -> None:
        """Start it and wait until it says it is ready."""
        log = self._log.open("a", encoding="utf-8")
        process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        self.process = process
        ready = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            with log:
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    if self._ready in line:
                        ready.set()

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + timeout_s
        while not ready.wait(0.05):
            if process.poll() is not None or time.monotonic() > deadline:
                text = self._log.read_text(encoding="utf-8")[-4000:]
                raise ProgramError(self._command, process.poll() or -1, "", text)

    def kill(self) -> None:
        """SIGKILL the program's supervisor: what a power cut or the kernel's memory killer does."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s: float = 60) -> int:
        """Stop it as a service manager would; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            raise
        if self._reader is not None:
            # It reads until the last process that has the pipe is gone.
            self._reader.join(10)
            if not self._reader.is_alive() and self.process.stdout is not None:
                self.process.stdout.close()
        return code


@contextlib.contextmanager
def stopping(servers: list[Server]) -> Iterator[None]:
    """Stop every server at the end, all at once, whatever happened."""
    try:
        yield
    finally:

        def stop(server: Server) -> None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.stop()

        running = [each for each in servers if each.process is not None and each.process.poll() is None]
        with ThreadPoolExecutor(max(1, len(running))) as pool:
            list(pool.map(stop, running))
