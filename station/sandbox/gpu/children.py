"""Runs what touches a GPU driver in small processes of their own: a driver that hangs or crashes takes nothing with it."""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from policies.errors import UnavailableError

_MAX_ANSWER_BYTES: Final = 1 << 20
_REAP_S: Final = 2.0


class DriverError(UnavailableError):
    """The driver did not do what it was asked; the message says how, in our words."""


class DriverHangsError(DriverError):
    """The driver does not answer; whoever asks again may leave another process behind in it."""


def ask(module: str, arguments: Sequence[str], *, timeout_s: float) -> bytes:
    """Run one of our modules and return what it printed.

    Args:
        module: by its full name.
        arguments: for it.
        timeout_s: after this it is killed.

    Raises:
        DriverHangsError: it did not end in time.
        DriverError: it crashed, or printed too much.
    """
    command = [sys.executable, "-I", "-m", module, *arguments]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        printed, _ = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _abandon(child)
        raise DriverHangsError(f"the driver did not answer in {timeout_s:g} s") from error
    if child.returncode != 0:
        raise DriverError(f"the driver made our process end with {child.returncode}")
    if len(printed) > _MAX_ANSWER_BYTES:
        raise DriverError("the driver said more than can be read")
    return printed


def _abandon(child: "subprocess.Popen[bytes]") -> None:
    """Kill a process; one that the kernel keeps inside the driver is not waited for."""
    child.kill()
    if child.stdout is not None:
        child.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=_REAP_S)
