"""The container engine, as few calls as the launcher needs: the only code of the station that uses the docker package.

Every failure becomes an error of ours. What is not there is `None` where that is an answer, and `UnavailableError` where it was
needed. The engine's own words go to the launcher's log and nowhere else.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from pydantic import JsonValue

from policies.errors import RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox import unix

LOG = logging.getLogger("station.launcher")

# Loading a large image on a slow disk is one request without a sign of life.
_TIMEOUT_S: Final = 600
_EXPLANATION: Final = 500
_REMOVE_S: Final = 30.0
_AGAIN_S: Final = 0.2

# What every Docker says that has no NVIDIA runtime; there is no other way to ask for it.
_NO_DEVICE_DRIVER: Final = "could not select device driver"

_T = TypeVar("_T")
Json = dict[str, Any]


class RequestRefusedError(UnavailableError):
    """The engine answers and does not do what it was asked for."""


class NoDeviceDriverError(RefusedError):
    """The engine has nothing that brings a GPU into a container."""


class Engine:
    """A Docker engine on a Unix socket."""

    def __init__(self, socket_path: Path) -> None:
        """Use a socket; nothing is asked yet."""
        self._socket_path = socket_path
        self._client: Any = None

    def process(self) -> int:
        """Return the process that made the engine's socket: another one after the engine was started again.

        Where a service manager made the socket for it, it stays the same.

        Raises:
            UnavailableError: nobody listens.
        """
        try:
            with unix.connect(self._socket_path, timeout_s=_TIMEOUT_S) as sock:
                return unix.peer(sock).pid
        except OSError:
            raise UnavailableError(f"no container engine answers on {self._socket_path}") from None

    def _api(self) -> Any:  # noqa: ANN401 - docker's client has no types
        if self._client is None:
            # docker's own connection leaks its socket when nobody listens.
            unix.connect(self._socket_path, timeout_s=_TIMEOUT_S).close()
            base = f"unix://{self._socket_path}"
            self._client = docker.APIClient(base_url=base, timeout=_TIMEOUT_S, version="auto")
        return self._client

    def _find(self, call: Callable[[Any], _T]) -> _T | None:
        try:
            return call(self._api())
        except NotFound:
            return None
        except APIError as error:
            _note(str(error.explanation))
            if _NO_DEVICE_DRIVER in str(error.explanation):
                raise NoDeviceDriverError(
                    RefusalCode.ENGINE_UNFIT,
                    "the container engine has no NVIDIA runtime: it can give a train no GPU",
                    hint="Install the NVIDIA container toolkit and start the engine again.",
                ) from error
            raise RequestRefusedError(
                f"the container engine refused a request (status {error.status_code})",
                hint="The launcher's log has the engine's own words.",
            ) from error
        except (DockerException, requests.RequestException, OSError) as error:
            self._client = None
            raise UnavailableError(
                f"no container engine answers on {self._socket_path}",
                hint="Install and start Docker (Debian: apt-get install docker.io), or correct engine.socket in "
                "station.toml; the launcher's user must be in the socket's group.",
            ) from error

    def _do(self, call: Callable[[Any], object]) -> Any:  # noqa: ANN401
        """As `_find`, for what must be there."""
        done = self._find(lambda api: (call(api),))
        if done is None:
            raise UnavailableError("the container engine has lost an image or a container")
        return done[0]

    def info(self, own_api: str | None = None) -> Json:
        """Return what the engine says of itself; under ``own`` what it says in its own words, where it has any."""
        found: Json = self._do(lambda api: api.info())
        return found | self._own(own_api, "info")

    def _own(self, own_api: str | None, what: str) -> Json:
        if own_api is None:
            return {}

        def ask(api: Any) -> Any:  # noqa: ANN401
            answer = api.get(f"{api.base_url}{own_api}/{what}")
            answer.raise_for_status()
            return answer.json()

        return {"own": self._do(ask)}

    def version(self) -> Json:
        """Return which engine it is, with its components."""
        found: Json = self._do(lambda api: api.version())
        return found

    def image(self, name: str) -> Json | None:
        """Return an image's facts, ``None`` where there is none."""
        return self._find(lambda api: api.inspect_image(name))

    def image_layers(self) -> list[tuple[str, ...]]:
        """Return the layers of every image, lowest first."""
        found = [self.image(each["Id"]) for each in self._do(lambda api: api.images(all=True))]
        return [layers_of(each) for each in found if each is not None]

    def load(self, archive: Iterable[bytes]) -> bool:
        """Load an image archive; says whether the engine took it."""
        taken = True
        for event in self._do(lambda api: list(api.load_image(archive, quiet=True) or ())):
            if isinstance(event, dict) and "error" in event:
                _note(str(event["error"]))
                taken = False
        return taken

    def remove_image(self, image_id: str) -> bool:
        """Remove an image where it is there; says whether it is gone, which it is not while a container uses it."""

        def remove(api: Any) -> bool:  # noqa: ANN401
            try:
                api.remove_image(image_id, noprune=True)
            except APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:
                    raise
                return False
            return True

        return self._find(remove) is not False

    def create(self, body: Mapping[str, JsonValue], name: str) -> str:
        """Create a container and return its id."""
        return str(self._do(lambda api: api.create_container_from_config(dict(body), name))["Id"])

    def prepare(self, container_id: str, own_api: str) -> int:
        """Make a container up to the point where its program would start; returns the process that waits to become it."""

        def ask(api: Any) -> None:  # noqa: ANN401
            api.post(f"{api.base_url}{own_api}/containers/{container_id}/init").raise_for_status()

        self._do(ask)
        state = (self.container(container_id) or {}).get("State") or {}
        return int(state.get("Pid") or 0)

    def start(self, container_id: str) -> None:
        """Start a container."""
        self._do(lambda api: api.start(container_id))

    def container(self, container_id: str, own_api: str | None = None) -> Json | None:
        """Return a container's facts, ``None`` where there is none; under ``own`` as `info`."""
        found = self._find(lambda api: api.inspect_container(container_id))
        return found if found is None else found | self._own(own_api, f"containers/{container_id}/json")

    def containers(self, labels: Mapping[str, str]) -> list[Json]:
        """Return every container, running or not, that has all these labels."""
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        found: list[Json] = self._do(lambda api: api.containers(all=True, filters=filters))
        return found

    def kill(self, name: str) -> None:
        """Kill a container where it is there and runs."""
        self._find(lambda api: api.kill(name))

    def remove(self, container_id: str) -> None:
        """Kill and remove a container with its volumes, where it is there.

        Raises:
            UnavailableError: it cannot be removed.
        """
        deadline, pause = time.monotonic() + _REMOVE_S, threading.Event()
        while True:
            try:
                self._find(lambda api: api.remove_container(container_id, force=True, v=True))
            except RequestRefusedError:
                # Engines refuse it of one that ends at this moment (seen of Podman: it cannot kill what has stopped).
                if time.monotonic() >= deadline:
                    raise
                pause.wait(_AGAIN_S)
            else:
                return

    def logs(self, container_id: str) -> bytes:
        """Return what the engine has kept of what a container wrote: a file or two of bounded size.

        Not by its last lines: of those Podman puts the parts of a line that was written in parts in the wrong order.
        """
        return self._find(lambda api: api.logs(container_id, stdout=True, stderr=True)) or b""


def layers_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the diff ids that the engine shows of an image."""
    return tuple((image.get("RootFS") or {}).get("Layers") or ())


def _note(words: str) -> None:
    LOG.warning("engine.refused", extra={"explanation": words[:_EXPLANATION]})
