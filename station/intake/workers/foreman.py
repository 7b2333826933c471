"""The foreman: a small process that has loaded everything once and forks a worker whenever intake asks for one.

Started as `python -m station.intake.workers.foreman` with a Unix socket as its standard input. A fork of a process without
threads is safe and takes milliseconds; intake itself has threads and is never forked. It ends when intake's end of the
socket closes, however intake ends, and its workers end with it. It holds no key: a worker gets that over its own socket.
"""

import array
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_STARTED = b"\1"


def main() -> int:
    """Fork workers until intake is gone."""
    # Loaded before the first fork, shared by all.
    from station.intake.workers import worker  # noqa: PLC0415

    intake = socket.socket(fileno=os.dup(0))
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_in, wake_out = socket.socketpair()
    wake_out.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_out.fileno(), warn_on_full_buffer=False)
    gc.freeze()
    with selectors.DefaultSelector() as selector:
        selector.register(intake, selectors.EVENT_READ)
        selector.register(wake_in, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if wake_in in ready:
                wake_in.recv(4096)
                _bury()
            if intake not in ready:
                continue
            descriptor = _asked(intake)
            if descriptor is None:
                return 0
            foreman = os.getpid()
            if os.fork() == 0:
                signal.set_wakeup_fd(-1)
                for other in (intake, wake_in, wake_out):
                    other.close()
                selector.close()
                _confine(libc, foreman)
                worker.work(socket.socket(fileno=descriptor))
                os._exit(0)
            os.close(descriptor)


def _asked(intake: socket.socket) -> int | None:
    """Receive one request, which is a worker's end of a socket; None when intake is gone."""
    try:
        message, ancillary, _, _ = intake.recvmsg(1, socket.CMSG_SPACE(array.array("i").itemsize))
    except OSError:
        return None
    if not message:
        return None
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: descriptors.itemsize])
    return descriptors[0] if descriptors else None


def _confine(libc: ctypes.CDLL, foreman: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The key is in its memory: nobody of the same user looks into it, and no core holds it.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != foreman:
        os._exit(0)


def _bury() -> None:
    """Reap what has ended, and end what it has started (such as a text recognition) with it."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        if ended is None:
            return
        # Not reaped yet, so its number is nobody else's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(ended.si_pid, signal.SIGKILL)
        os.waitpid(ended.si_pid, 0)


if __name__ == "__main__":
    sys.exit(main())
