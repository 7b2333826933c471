"""Compute's side of the launcher's socket: the same verbs, asked of another process."""

import time
from pathlib import Path
from typing import Final, TypeVar

from policies.errors import PhtError, RefusedError, UnavailableError, WireError
from station.sandbox import unix
from station.sandbox.gpu.model import GpuReport
from station.sandbox.launcher import messages
from station.sandbox.launcher.messages import Answer, Request
from station.sandbox.spec import (
    ContainerSpec,
    ContainerStatus,
    EngineInfo,
    LoadedImage,
    StartedContainer,
)

_QUICK_S: Final = 60.0
# Reading and sending a large image takes its time on a slow disk.
_LOAD_S: Final = 1800.0

_T = TypeVar("_T")


class LauncherClient:
    """Implements `station.sandbox.spec.Launcher` over the socket; each call is a connection of its own."""

    def __init__(self, socket_path: Path) -> None:
        """Use a launcher's socket; nothing is asked yet."""
        self._path = socket_path

    def engine_info(self) -> EngineInfo:
        """Say what the engine is and what it cannot enforce."""
        return _present(self._ask(messages.EngineInfoRequest()).engine)

    def load_image(self, config_digest: str) -> LoadedImage:
        """Bring an image from the layer store into the engine."""
        request = messages.LoadImageRequest(config_digest=config_digest)
        return _present(self._ask(request, _LOAD_S).image)

    def remove_image(self, config_digest: str) -> bool:
        """Remove the image that was made of one in the layer store."""
        request = messages.RemoveImageRequest(config_digest=config_digest)
        return _present(self._ask(request, _LOAD_S).removed) == 1

    def start(self, spec: ContainerSpec) -> StartedContainer:
        """Start a container."""
        return _present(self._ask(messages.StartRequest(spec=spec), _LOAD_S).started)

    def status(self, run_id: str) -> ContainerStatus:
        """Say how a run's container is."""
        return _present(self._ask(messages.StatusRequest(run_id=run_id)).status)

    def wait(self, run_id: str, timeout_s: float) -> ContainerStatus:
        """Wait until a run's container has exited, at most `timeout_s`."""
        timeout_s = min(timeout_s, messages.MAX_WAIT_S)
        request = messages.WaitRequest(run_id=run_id, timeout_s=float(timeout_s))
        return _present(self._ask(request, timeout_s + _QUICK_S).status)

    def logs(self, run_id: str, max_bytes: int) -> str:
        """Return the end of what a run's container wrote."""
        return _present(self._ask(messages.LogsRequest(run_id=run_id, max_bytes=max_bytes)).logs)

    def stop(self, run_id: str) -> None:
        """Kill and remove a run's container."""
        self._ask(messages.StopRequest(run_id=run_id))

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        """Return every container of this station."""
        return _present(self._ask(messages.ListRequest()).runs)

    def remove_orphans(self) -> int:
        """Kill and remove every container of this station."""
        return _present(self._ask(messages.RemoveOrphansRequest()).removed)

    def gpus(self) -> GpuReport:
        """Return every GPU of the host, and how it is."""
        return _present(self._ask(messages.GpusRequest()).gpus)

    def _ask(self, request: Request, timeout_s: float = _QUICK_S) -> Answer:
        try:
            with unix.connect(self._path, timeout_s=_QUICK_S) as sock:
                messages.send(sock, request)
                deadline = time.monotonic() + timeout_s
                data = messages.receive(sock, max_bytes=messages.MAX_ANSWER_BYTES, deadline=deadline)
        except (OSError, WireError) as error:
            raise UnavailableError(
                "the station's launcher does not answer",
                hint="Is `pht-station serve` running? See logs/launcher.log.",
            ) from error
        if data is None:
            raise UnavailableError(
                "the launcher closed the connection", hint="It speaks to the compute service's user only."
            )
        answer = messages.parse_answer(data)
        if answer.refusal is not None:
            raise RefusedError(answer.refusal, answer.text, hint=answer.hint)
        if answer.error == "unavailable":
            raise UnavailableError(answer.text, hint=answer.hint)
        if answer.error is not None:
            raise PhtError(answer.text, hint=answer.hint)
        return answer


def _present(value: _T | None) -> _T:
    if value is None:
        raise WireError("the launcher's answer lacks what was asked for")
    return value
