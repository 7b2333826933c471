"""The launcher's verbs against the real engine.

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
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from policies.bundle import BlobFolder
from policies.errors import PhtError, RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox import hardening, image
from station.sandbox.launcher_engine import Engine, layers_of
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

MAX_LOG_BYTES: Final = 256 * 1024
_POLL_S: Final = 0.1


class LauncherCore:
    """Implements `station.sandbox.spec.Launcher` with an engine on a Unix socket."""

    def __init__(self, home: Path, settings: LauncherSettings) -> None:
        """Use the folders under ``home/compute``; nothing is asked of the engine yet."""
        compute = Path(os.path.realpath(home)) / "compute"
        self._settings = settings
        self._engine = Engine(settings.engine_socket)
        self._cohorts = compute / "cohorts"
        self._control = compute / "control"
        self._store = BlobFolder(compute / "layers")
        self._home_label = hashlib.sha256(str(compute).encode()).hexdigest()[:16]
        self._labels = {hardening.LABEL_STATION: settings.station, hardening.LABEL_HOME: self._home_label}
        self._starting = threading.Lock()
        self._timers: dict[str, threading.Timer] = {}
        self._timed_out: set[str] = set()

    def engine_info(self) -> EngineInfo:
        """Say what the engine is and what it cannot enforce."""
        info = self._engine.info()
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
        taken = self._engine.load(image.archive(rewritten, self._store, skip=skip))
        if not taken or not self._has(rewritten):
            raise RefusedError(
                RefusalCode.IMAGE_DIGEST, "the engine did not make the verified image of what it was given"
            )
        sent = len(layers) - skip
        return LoadedImage(image_id=rewritten.image_id, layers_hashed=len(layers), layers_sent=sent)

    def _has(self, rewritten: image.RewrittenImage) -> bool:
        """Whether the engine has our image with exactly its layers.

        Raises:
            RefusedError: it shows our id with other layers.
        """
        found = self._engine.image(rewritten.image_id)
        if found is None:
            return False
        if found.get("Id") != rewritten.image_id or layers_of(found) != rewritten.diff_ids:
            raise RefusedError(
                RefusalCode.IMAGE_DIGEST, "the engine's layers are not those of the signed image"
            )
        return True

    def _layers_present(self, diff_ids: tuple[str, ...]) -> int:
        """Return how many of the lowest layers the engine already has, in this order."""
        best = 0
        for theirs in self._engine.image_layers():
            same = 0
            while same < min(len(diff_ids), len(theirs)) and diff_ids[same] == theirs[same]:
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
            container_id = self._engine.create(body, self._name(run_id))
            different = hardening.differences(body, self._engine.container(container_id) or {})
            if different:
                raise RefusedError(
                    RefusalCode.ENGINE_UNFIT,
                    f"the engine changed what it was asked for: {', '.join(different)}",
                )
            self._engine.start(container_id)
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
        if any(_run_of(each) == spec.run_id for each in existing):
            raise RefusedError(RefusalCode.SANDBOX_ARGUMENT, f"the run {spec.run_id} has a container already")
        running = sum(1 for each in existing if each.get("State") == "running")
        if running >= self._settings.max_containers:
            raise RefusedError(
                RefusalCode.RESOURCES_BUSY, f"{running} containers run; this station allows no more at once"
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
        with contextlib.suppress(UnavailableError):
            self._engine.kill(self._name(run_id))

    def status(self, run_id: str) -> ContainerStatus:
        """Say how a run's container is.

        Raises:
            UnavailableError: no engine answers.
        """
        found = self._engine.container(self._name(run_id))
        if found is None:
            return ContainerStatus(run_id=run_id, state="absent")
        state = found["State"]
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
        limit = min(max_bytes, MAX_LOG_BYTES)
        raw = self._engine.logs(self._name(run_id))
        return raw[-limit:].decode("utf-8", "replace") if limit > 0 else ""

    def stop(self, run_id: str) -> None:
        """Kill and remove a run's container; fine when it is gone already.

        Raises:
            UnavailableError: it could not be removed.
        """
        self._forget(run_id)
        self._engine.remove(self._name(run_id))
        LOG.info("container.removed", extra={"run": run_id})

    def _forget(self, run_id: str) -> None:
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()
        self._timed_out.discard(run_id)

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        """Return every container of this station."""
        return tuple(self.status(_run_of(each)) for each in self._containers())

    def remove_orphans(self) -> int:
        """Kill and remove every container of this station; returns how many."""
        found = self._containers()
        for each in found:
            self._forget(_run_of(each))
            self._engine.remove(each["Id"])
        return len(found)

    def _containers(self) -> list[dict[str, Any]]:
        return self._engine.containers(self._labels)

    def _name(self, run_id: str) -> str:
        return f"pht-{self._home_label}-{run_id}"


def _run_of(container: dict[str, Any]) -> str:
    return str(container["Labels"].get(hardening.LABEL_RUN, ""))


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
