"""One ServerApp process per order, whatever became of the one before.

A run worker that is killed leaves its ServerApp to end by itself, and the next worker starts another one. A process that hangs, or is
frozen and woken a minute later, would go on with what it knew then, and could put an old checkpoint over a newer one. So the process
holds a lock of the run's folder as long as it lives, and who finds it held waits a while and then ends the holder.
"""

import fcntl
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long the process before may take to end by itself: its worker's end tells it to."""
_LOOK_S = 0.05
NAME = "lock"


@contextmanager
def hold_run(folder: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Be the only process that carries the order of this folder.

    Raises:
        OSError: the folder is gone or cannot be written.
    """
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end_at = time.monotonic() + patience_s
        while not _taken(descriptor):
            if time.monotonic() >= end_at:
                _end_holder(descriptor)
                end_at = time.monotonic() + patience_s
            time.sleep(_LOOK_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_holder(descriptor: int) -> None:
    # The lock is held, so whoever wrote this lives: the number is nobody else's.
    with suppress(ValueError, ProcessLookupError):
        os.kill(int(os.pread(descriptor, 32, 0)), signal.SIGKILL)
        log.warning("serverapp_before_ended")
