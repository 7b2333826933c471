"""The launcher's verbs against the real engine: the only code of the station that uses the docker package.

It decides nothing about data or policy. Whoever asks, every argument is checked again here: names by their models, folders by
resolving them under the station's own, limits against the ceilings the launcher was started with, the image by reading every
byte of our layer store. What the engine made of a request is inspected before the container is started.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from pydantic import JsonValue

from policies.bundle import BlobFolder
from policies.errors import PhtError, RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox import hardening, image, unix
from station.sandbox.spec import (
    FIRST_UID,
    UID_COUNT,
    ContainerSpec,
    ContainerStatus,
    EngineInfo,
    LauncherSettings,
    LoadedImage,
    StartedContainer,
)

LOG = logging.getLogger("station.launcher")

# Loading a large image on a slow disk is one request without a sign of life.
_ENGINE_TIMEOUT_S: Final = 600
_POLL_S: Final = 0.1
MAX_LOG_BYTES: Final = 256 * 1024

_T = TypeVar("_T")


class LauncherCore:
    """Implements `station.sandbox.spec.Launcher` with an engine on a Unix socket."""

    def __init__(self, home: Path, settings: LauncherSettings) -> None:
        """Use the folders under ``home/compute``; nothing is asked of the engine yet."""
        compute = Path(os.path.realpath(home)) / "compute"
        self._settings = settings
        self._cohorts = compute / "cohorts"
        self._control = compute / "control"
        self._store = BlobFolder(compute / "layers")
        self._home_label = hashlib.sha256(str(compute).encode()).hexdigest()[:16]
        self._labels = {hardening.LABEL_STATION: settings.station, hardening.LABEL_HOME: self._home_label}
        self._starting = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}
        self._timed_out: set[str] = set()
        self._api_client: Any = None

    # The engine

    def _api(self) -> Any:  # noqa: ANN401 - docker's client has no types
        if self._api_client is None:
            # docker's own connection leaks its socket when nobody listens.
            unix.connect(self._settings.engine_socket, timeout_s=_ENGINE_TIMEOUT_S).close()
            base = f"unix://{self._settings.engine_socket}"
            self._api_client = docker.APIClient(base_url=base, timeout=_ENGINE_TIMEOUT_S, version="auto")
        return self._api_client

    def _ask(self, call: Callable[[Any], _T]) -> _T:
        """Call the engine; what it or its socket cannot do becomes an error of ours, without the engine's text."""
        try:
            return call(self._api())
        except NotFound:
            raise
        except APIError as error:
            LOG.warning(
                "engine.refused",
                extra={"status": error.status_code, "explanation": str(error.explanation)[:500]},
            )
            raise UnavailableError(
                f"the container engine refused a request (status {error.status_code})",
                hint="The launcher's log has the engine's own words.",
            ) from error
        except (DockerException, requests.RequestException, OSError) as error:
            self._api_client = None
            raise UnavailableError(
                f"no container engine answers on {self._settings.engine_socket}",
                hint="Install and start Docker (Debian: apt-get install docker.io), or correct engine.socket in "
                "station.toml; the launcher's user must be in the socket's group.",
            ) from error

    def engine_info(self) -> EngineInfo:
        """Say what the engine is and what it cannot enforce."""
        info = self._ask(lambda api: api.info())
        return EngineInfo(
            name=str(info.get("OperatingSystem", "")),
            version=str(info.get("ServerVersion", "")),
            architecture=str(info.get("Architecture", "")),
            cgroup_version=str(info.get("CgroupVersion", "")),
            cpus=int(info.get("NCPU", 0)),
            memory_bytes=int(info.get("MemTotal", 0)),
            unfit=hardening.unfit_reasons(info),
        )

    def _require_fit(self) -> None:
        unfit = self.engine_info().unfit
        if unfit:
            raise RefusedError(
                RefusalCode.ENGINE_UNFIT,
                f"the container engine cannot enforce what a train must be held to: {', '.join(unfit)}",
                hint="Use a Docker engine with cgroup limits and its default seccomp profile, without user namespace "
                'remapping and with "containerd-snapshotter": false among the features in its daemon.json.',
            )

    # Images

    def load_image(self, config_digest: str) -> LoadedImage:
        """Bring an image from our layer store into the engine, verified byte by byte.

        Raises:
            RefusedError: our store does not hold it as signed, or the engine made something else of it.
            UnavailableError: no engine answers.
        """
        self._require_fit()
        rewritten = image.read_image(self._store, config_digest)
        layers = rewritten.diff_ids
        if self._has(rewritten):
            image.verify_layers(layers, self._store)
            return LoadedImage(image_id=rewritten.image_id, layers_hashed=len(layers), layers_sent=0)
        skip = self._layers_present(layers)
        # The others are hashed while they are sent.
        image.verify_layers(layers[:skip], self._store)
        self._load(image.archive(rewritten, self._store, skip=skip))
        if not self._has(rewritten):
            raise RefusedError(
                RefusalCode.IMAGE_DIGEST, "the engine shows another image than the one that was verified"
            )
        sent = len(layers) - skip
        return LoadedImage(image_id=rewritten.image_id, layers_hashed=len(layers), layers_sent=sent)

    def _load(self, chunks: Iterator[bytes]) -> None:
        def load(api: Any) -> None:  # noqa: ANN401
            for event in api.load_image(chunks, quiet=True) or ():
                if isinstance(event, dict) and "error" in event:
                    LOG.warning("engine.load_failed", extra={"explanation": str(event["error"])[:500]})
                    raise RefusedError(
                        RefusalCode.IMAGE_DIGEST, "the engine did not accept the verified image"
                    )

        self._ask(load)

    def _has(self, rewritten: image.RewrittenImage) -> bool:
        """Whether the engine has our image with exactly its layers.

        Raises:
            RefusedError: it shows our id with other layers.
        """
        try:
            found = self._inspect_image(rewritten.image_id)
        except NotFound:
            return False
        layers = (found.get("RootFS") or {}).get("Layers") or []
        if found.get("Id") != rewritten.image_id or tuple(layers) != rewritten.diff_ids:
            raise RefusedError(
                RefusalCode.IMAGE_DIGEST, "the engine's layers are not those of the signed image"
            )
        return True

    def _inspect_image(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(lambda api: api.inspect_image(name))
        return found

    def _layers_present(self, diff_ids: tuple[str, ...]) -> int:
        """Return how many of the lowest layers the engine already has, in this order."""
        best = 0
        for each in self._ask(lambda api: api.images(all=True)):
            with contextlib.suppress(NotFound):
                found = self._inspect_image(each["Id"])
                layers = (found.get("RootFS") or {}).get("Layers") or []
                same = 0
                for mine, theirs in zip(diff_ids, layers, strict=False):
                    if mine != theirs:
                        break
                    same += 1
                best = max(best, same)
        return best

    # Containers

    def start(self, spec: ContainerSpec) -> StartedContainer:
        """Verify the image again, create the container, inspect it, start it.

        Raises:
            RefusedError: an argument, the image or the engine is not what it must be.
            UnavailableError: no engine answers.
        """
        self._check(spec)
        loaded = self.load_image(spec.image_config_digest)
        with self._starting:
            self._require_room(spec)
            uid = self._fresh_uid()
            labels = {**self._labels, hardening.LABEL_RUN: spec.run_id, hardening.LABEL_UID: str(uid)}
            body = hardening.create_body(spec, image_id=loaded.image_id, uid=uid, labels=labels)
            container_id = self._create(spec.run_id, body)
        self._watch(spec)
        LOG.info("container.started", extra={"run": spec.run_id, "uid": uid})
        return StartedContainer(
            run_id=spec.run_id, container_id=container_id, image_id=loaded.image_id, uid=uid
        )

    def _create(self, run_id: str, body: dict[str, JsonValue]) -> str:
        """Create, inspect and start a container; one that cannot be started is not left behind."""
        try:
            made = self._ask(lambda api: api.create_container_from_config(body, self._name(run_id)))
            container_id = str(made["Id"])
            self._require_as_asked(container_id, body)
            self._ask(lambda api: api.start(container_id))
        except NotFound as error:
            self.stop(run_id)
            raise UnavailableError(
                "the engine lost the image or the container before it could be started"
            ) from error
        except PhtError:
            self.stop(run_id)
            raise
        return container_id

    def _check(self, spec: ContainerSpec) -> None:
        settings = self._settings
        beyond = [
            name
            for name, asked, ceiling in (
                ("memory_bytes", spec.memory_bytes, settings.max_memory_bytes),
                ("cpus", spec.cpus, settings.max_cpus),
                ("pids", spec.pids, settings.max_pids),
                ("scratch_bytes", spec.scratch_bytes, settings.max_scratch_bytes),
                ("wall_clock_s", spec.wall_clock_s, settings.max_wall_clock_s),
            )
            if asked > ceiling
        ]
        if beyond:
            raise RefusedError(
                RefusalCode.HOSPITAL_RESOURCES, f"beyond the station's ceilings: {', '.join(beyond)}"
            )
        _require_folder(spec.cohort_dir, self._cohorts, "the cohort's folder")
        _require_folder(spec.control_dir, self._control, "the control folder")

    def _require_room(self, spec: ContainerSpec) -> None:
        existing = self._containers()
        if any(each["Labels"].get(hardening.LABEL_RUN) == spec.run_id for each in existing):
            raise RefusedError(RefusalCode.SANDBOX_ARGUMENT, f"the run {spec.run_id} has a container already")
        running = sum(1 for each in existing if each.get("State") == "running")
        if running >= self._settings.max_containers:
            raise RefusedError(
                RefusalCode.RESOURCES_BUSY, f"{running} containers run; this station allows no more at once"
            )

    def _require_as_asked(self, container_id: str, body: dict[str, JsonValue]) -> None:
        inspected = self._ask(lambda api: api.inspect_container(container_id))
        different = hardening.differences(body, inspected)
        if different:
            raise RefusedError(
                RefusalCode.ENGINE_UNFIT, f"the engine changed what it was asked for: {', '.join(different)}"
            )

    @staticmethod
    def _fresh_uid() -> int:
        return FIRST_UID + secrets.randbelow(UID_COUNT)

    def _watch(self, spec: ContainerSpec) -> None:
        timer = threading.Timer(spec.wall_clock_s, self._time_is_over, (spec.run_id,))
        timer.daemon = True
        self._timers[spec.run_id] = timer
        timer.start()

    def _time_is_over(self, run_id: str) -> None:
        self._timed_out.add(run_id)
        LOG.warning("container.wall_clock", extra={"run": run_id})
        with contextlib.suppress(UnavailableError, NotFound):
            self._ask(lambda api: api.kill(self._name(run_id)))

    def status(self, run_id: str) -> ContainerStatus:
        """Say how a run's container is.

        Raises:
            UnavailableError: no engine answers.
        """
        found = self._find(run_id)
        try:
            state = self._ask(lambda api: api.inspect_container(found))["State"] if found else None
        except NotFound:
            state = None
        if state is None:
            return ContainerStatus(run_id=run_id, state="absent")
        exited = not state.get("Running")
        return ContainerStatus(
            run_id=run_id,
            state="exited" if exited else "running",
            exit_code=int(state["ExitCode"]) if exited else None,
            out_of_memory=bool(state.get("OOMKilled")),
            timed_out=run_id in self._timed_out,
        )

    def wait(self, run_id: str, timeout_s: float) -> ContainerStatus:
        """Wait until a container has exited, at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while True:
            now = self.status(run_id)
            if now.state != "running" or time.monotonic() >= deadline:
                return now
            pause.wait(_POLL_S)

    def logs(self, run_id: str, max_bytes: int) -> str:
        """Return the end of what a container wrote, for the hospital's operator alone."""
        found = self._find(run_id)
        limit = min(max_bytes, MAX_LOG_BYTES)
        raw = b""
        with contextlib.suppress(NotFound):
            raw = (
                self._ask(lambda api: api.logs(found, stdout=True, stderr=True, tail=5000)) if found else b""
            )
        return raw[-limit:].decode("utf-8", "replace") if limit > 0 else ""

    def stop(self, run_id: str) -> None:
        """Kill and remove a run's container; fine when it is gone already.

        Raises:
            UnavailableError: it could not be removed.
        """
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()
        for each in self._containers():
            if each["Labels"].get(hardening.LABEL_RUN) == run_id:
                self._remove(each["Id"])
        self._timed_out.discard(run_id)

    def _remove(self, container_id: str) -> None:
        with contextlib.suppress(NotFound):
            self._ask(lambda api: api.remove_container(container_id, force=True, v=True))
            LOG.info("container.removed", extra={"container": container_id[:12]})

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        """Return every container of this station."""
        return tuple(self.status(each["Labels"][hardening.LABEL_RUN]) for each in self._containers())

    def remove_orphans(self) -> int:
        """Kill and remove every container of this station; returns how many."""
        found = self._containers()
        for each in found:
            run_id = each["Labels"].get(hardening.LABEL_RUN, "")
            timer = self._timers.pop(run_id, None)
            if timer is not None:
                timer.cancel()
            self._remove(each["Id"])
        return len(found)

    def _containers(self) -> list[dict[str, Any]]:
        labels = [f"{name}={value}" for name, value in self._labels.items()]
        found: list[dict[str, Any]] = self._ask(
            lambda api: api.containers(all=True, filters={"label": labels})
        )
        return found

    def _find(self, run_id: str) -> str | None:
        for each in self._containers():
            if each["Labels"].get(hardening.LABEL_RUN) == run_id:
                return str(each["Id"])
        return None

    def _name(self, run_id: str) -> str:
        return f"pht-{self._home_label}-{run_id}"


def _require_folder(given: str, parent: Path, what: str) -> None:
    """Check that a folder lies below one of ours, with no link on the way.

    Raises:
        RefusedError: it does not.
    """
    path = Path(given)
    inside = path != parent and path.is_relative_to(parent) and ".." not in path.parts
    try:
        real = inside and os.path.realpath(path, strict=True) == given and stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        real = False
    if not real:
        raise RefusedError(
            RefusalCode.SANDBOX_ARGUMENT, f"{what} is not a folder of its own below {parent.name}/"
        )
