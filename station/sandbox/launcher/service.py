"""The launcher: a small process that alone reaches the container engine, over a Unix socket with a closed set of verbs.

Who may speak is decided by the kernel's word on the peer's user, before a byte is read. It holds no key and no data, and what
it answers holds no text of a train but the bounded log that the hospital's operator asks for.
"""

import logging
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Final

from policies.errors import PhtError, RefusedError, StorageError, UnavailableError, WireError
from policies.refusals import RefusalCode
from station.sandbox import unix
from station.sandbox.launcher import messages
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.launcher.messages import Answer
from station.sandbox.spec import Launcher, LauncherSettings

LOG = logging.getLogger("station.launcher")

_MAX_CONNECTIONS: Final = 32
_IDLE_S: Final = 3600.0
_BACKLOG: Final = 16
_ACCEPT_S: Final = 0.5


def local_launcher(home: Path, settings: LauncherSettings) -> Launcher:
    """Return the launcher's verbs for use in this process: for dry runs and tests, where there is no one to keep apart."""
    return LauncherCore(home, settings)


def serve(home: Path, settings: LauncherSettings, *, stop: threading.Event | None = None) -> None:
    """Remove what an earlier life left running, then answer until SIGTERM, SIGINT or `stop`.

    Args:
        home: the station's folder.
        settings: the ceilings and who may speak.
        stop: ends the service; without it signals do (then this must be the main thread).

    Raises:
        StorageError: the socket cannot be made.
    """
    ended = stop or threading.Event()
    if stop is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
    core = LauncherCore(home, settings)
    _sweep(core)
    path = home / "run" / "launcher.sock"
    with _listen(path, settings) as listener:
        LOG.info("launcher.ready")
        room = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if not _is_allowed(connection, settings) or not room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=_converse, args=(connection, core, room), daemon=True).start()
    _sweep(core)
    path.unlink(missing_ok=True)


def _sweep(core: Launcher) -> None:
    """Remove this station's containers; without an engine there are none to remove."""
    try:
        removed = core.remove_orphans()
    except UnavailableError:
        LOG.warning("launcher.no_engine")
        return
    if removed:
        LOG.warning("launcher.orphans_removed", extra={"count": removed})


def _listen(path: Path, settings: LauncherSettings) -> socket.socket:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        listener = unix.listen(path, mode=0o660, backlog=_BACKLOG, gid=settings.socket_gid)
    except OSError as error:
        raise StorageError(f"the launcher's socket cannot be made: {error.strerror}") from error
    listener.settimeout(_ACCEPT_S)
    return listener


def _is_allowed(connection: socket.socket, settings: LauncherSettings) -> bool:
    uid = unix.peer_uid(connection)
    if uid in {0, settings.compute_uid}:
        return True
    LOG.warning("launcher.peer_refused", extra={"uid": uid})
    return False


def _converse(connection: socket.socket, core: Launcher, room: threading.BoundedSemaphore) -> None:
    """Answer one connection's requests, one after the other."""
    try:
        with connection:
            while True:
                data = messages.receive(
                    connection,
                    max_bytes=messages.MAX_REQUEST_BYTES,
                    deadline=time.monotonic() + _IDLE_S,
                )
                if data is None:
                    return
                answer = answer_request(core, data)
                connection.settimeout(60)
                messages.send(connection, answer)
    except (WireError, OSError):
        LOG.warning("launcher.connection_ended")
    finally:
        room.release()


def answer_request(core: Launcher, data: bytes) -> Answer:
    """Do what one request asks; whatever goes wrong becomes an answer."""
    try:
        request = messages.parse_request(data)
        LOG.info("launcher.request", extra={"verb": request.verb})
        return _do(core, request)
    except WireError as error:
        return Answer(refusal=RefusalCode.SANDBOX_ARGUMENT, text=error.message)
    except RefusedError as error:
        return Answer(refusal=RefusalCode(error.code), text=error.message, hint=error.hint)
    except UnavailableError as error:
        return Answer(error="unavailable", text=error.message, hint=error.hint)
    except PhtError as error:
        return Answer(error="fault", text=error.message, hint=error.hint)
    except Exception:  # the outermost boundary of a conversation; the service goes on for the others
        LOG.exception("launcher.fault")
        return Answer(error="fault", text="the launcher failed; its log says how")


def _do(core: Launcher, request: messages.Request) -> Answer:
    match request:
        case messages.EngineInfoRequest():
            return Answer(engine=core.engine_info())
        case messages.LoadImageRequest():
            return Answer(image=core.load_image(request.config_digest))
        case messages.RemoveImageRequest():
            return Answer(removed=int(core.remove_image(request.config_digest)))
        case messages.StartRequest():
            return Answer(started=core.start(request.spec))
        case messages.StatusRequest():
            return Answer(status=core.status(request.run_id))
        case messages.WaitRequest():
            return Answer(status=core.wait(request.run_id, request.timeout_s))
        case messages.LogsRequest():
            return Answer(logs=core.logs(request.run_id, request.max_bytes))
        case messages.StopRequest():
            core.stop(request.run_id)
            return Answer()
        case messages.ListRequest():
            return Answer(runs=core.list_runs())
        case messages.RemoveOrphansRequest():
            return Answer(removed=core.remove_orphans())
        case messages.GpusRequest():
            return Answer(gpus=core.gpus())
