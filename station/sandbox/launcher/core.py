"""The launcher's verbs against the real engine.

It decides nothing about data or policy. Whoever asks, every argument is checked again here: names by their models, folders by
resolving them under the station's own, limits against the ceilings the launcher was started with, the image by reading every
byte of our layer store. What the engine made of a request is inspected before the container is started, and what the kernel shows of
the container is compared before anybody hears of it.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from policies.blobs import BlobFolder
from policies.errors import PhtError, RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox.engine import hardening
from station.sandbox.engine.api import Engine
from station.sandbox.engine.choosing import dialect_of
from station.sandbox.engine.dialect import Dialect, Json, Terms
from station.sandbox.engine.fitness import NOT_VISIBLE, explained, without_labels
from station.sandbox.engine.mounts import Place
from station.sandbox.engine.procfs import sees_processes
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import GpuReport, LeasedGpu
from station.sandbox.launcher.confirming import GVISOR, confirm, held_to
from station.sandbox.launcher.folders import require_folder
from station.sandbox.launcher.gpus import GpuDesk
from station.sandbox.launcher.images import ImageLoader
from station.sandbox.launcher.limiting import set_limits
from station.sandbox.launcher.room import Room
from station.sandbox.spec import (
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
_AGAIN_S: Final = 5.0


class LauncherCore:
    """Implements `station.sandbox.spec.Launcher` with an engine on a Unix socket."""

    def __init__(self, home: Path, settings: LauncherSettings, leases: Leases | None = None) -> None:
        """Use the folders under ``home/compute``; nothing is asked of the engine yet."""
        compute = Path(os.path.realpath(home)) / "compute"
        self._settings = settings
        self._engine = Engine(settings.engine_socket)
        self._cohorts = compute / "cohorts"
        self._control = compute / "control"
        self._images = ImageLoader(self._engine, BlobFolder(compute / "layers"))
        self._home_label = hashlib.sha256(str(compute).encode()).hexdigest()[:16]
        self._labels = {hardening.LABEL_STATION: settings.station, hardening.LABEL_HOME: self._home_label}
        self._gpus = GpuDesk(leases or Leases(settings.gpu), settings.runtime)
        self._starting = threading.Lock()
        self._room = Room(settings)
        self._timers: dict[str, threading.Timer] = {}
        self._timed_out: set[str] = set()
        # Which engine process started a container.
        self._started_by: dict[str, int] = {}

    def engine_info(self) -> EngineInfo:
        """Say what the engine is and what it cannot enforce."""
        dialect = self._dialect()
        return self._describe(dialect, self._engine.info(dialect.own_api))

    def _dialect(self) -> Dialect:
        # Asked each time: another engine may have taken the socket's place.
        return dialect_of(self._engine.version())

    def _describe(self, dialect: Dialect, info: Json) -> EngineInfo:
        return EngineInfo(
            kind=dialect.name,
            name=str(info.get("OperatingSystem", "")),
            version=str(info.get("ServerVersion", "")),
            architecture=str(info.get("Architecture", "")),
            cgroup_version=str(info.get("CgroupVersion", "")),
            cpus=_whole(info.get("NCPU")),
            memory_bytes=_whole(info.get("MemTotal")),
            unfit=(
                *dialect.unfit(info, self._settings.runtime),
                *without_labels(dialect.name, info, self._settings.selinux),
                *(() if sees_processes() else (NOT_VISIBLE,)),
            ),
        )

    def _require_fit(self) -> tuple[Dialect, Json]:
        dialect = self._dialect()
        info = self._engine.info(dialect.own_api)
        unfit = self._describe(dialect, info).unfit
        if unfit:
            raise RefusedError(
                RefusalCode.ENGINE_UNFIT,
                f"the container engine cannot enforce what a train must be held to: {', '.join(unfit)}",
                hint=" ".join(dict.fromkeys(explained(name) for name in unfit)),
            )
        return dialect, info

    def load_image(self, config_digest: str) -> LoadedImage:
        """Bring an image from our layer store into the engine, verified byte by byte.

        Raises:
            RefusedError: our store does not hold it as signed, or the engine made something else of it.
            UnavailableError: no engine answers.
        """
        return self._images.load(config_digest, *self._require_fit())

    def remove_image(self, config_digest: str) -> bool:
        """Remove the image that we made of one in our layer store; says whether it is gone.

        Raises:
            UnavailableError: no engine answers.
        """
        return self._images.remove(config_digest, self._dialect(), self._engine.info())

    # Containers

    def start(self, spec: ContainerSpec) -> StartedContainer:
        """Verify the image again, create the container, inspect it, start it.

        What an engine that died left of the run's last container goes first.

        Raises:
            RefusedError: an argument, the image or the engine is not what it must be, or the run's container runs.
            UnavailableError: no engine answers.
        """
        places = self._check(spec)
        dialect, info = self._require_fit()
        self._remove_remains(spec.run_id)
        loaded = self._images.load(spec.image_config_digest, dialect, info, spec.series)
        gpu = self._gpus.lease(spec, dialect.name, self._containers()) if spec.gpu else None
        try:
            return self._start(spec, places, dialect, info, loaded, gpu)
        except PhtError as error:
            if gpu is None:
                raise
            self._gpus.give_back(spec.run_id)
            if not self._gpus.may_do_without(spec, error):
                raise
        return self._start(spec, places, dialect, info, loaded, None)

    def _start(
        self,
        spec: ContainerSpec,
        places: Mapping[str, Place],
        dialect: Dialect,
        info: Json,
        loaded: LoadedImage,
        gpu: LeasedGpu | None,
    ) -> StartedContainer:
        with self._starting:
            self._require_room(spec)
        with contextlib.ExitStack() as undo:
            undo.callback(self._room.leave, spec.run_id)
            started_by = self._engine.process()
            uid = self._fresh_uid(dialect.uids(info))
            labels = {**self._labels, hardening.LABEL_RUN: spec.run_id, hardening.LABEL_UID: str(uid)}
            if gpu is not None:
                labels[hardening.LABEL_GPU] = gpu.uuid
            terms = Terms(
                loaded.image_id, uid, labels, self._settings.runtime, gpu, self._settings.selinux.options
            )
            container_id, user = self._create(dialect, info, spec, terms, places)
            undo.pop_all()
        self._room.started(spec.run_id)
        self._started_by[spec.run_id] = started_by
        self._watch(spec)
        LOG.info("container.started", extra={"run": spec.run_id, "uid": uid})
        return StartedContainer(
            run_id=spec.run_id,
            container_id=container_id,
            image_id=loaded.image_id,
            uid=uid,
            peer_uid=None if terms.runtime == GVISOR else user,
            gpu=gpu,
        )

    def _remove_remains(self, run_id: str) -> None:
        """Remove a run's container that has ended, or that was given up while no engine was there to remove it."""
        with self._starting:
            needed = self._room.is_needed(run_id)
            remains = any(
                _run_of(each) == run_id and (not needed or each.get("State") != "running")
                for each in self._containers()
            )
            if remains and not self._room.is_starting(run_id):
                self.stop(run_id)

    def _fresh_uid(self, users: range) -> int:
        taken = {str(each["Labels"].get(hardening.LABEL_UID)) for each in self._containers()}
        # A rootless engine has few enough to draw one twice.
        while str(uid := secrets.choice(users)) in taken:
            pass
        return uid

    def _create(
        self, dialect: Dialect, info: Json, spec: ContainerSpec, terms: Terms, places: Mapping[str, Place]
    ) -> tuple[str, int]:
        """Create, inspect and start a container, and hear the kernel's word on it; else nothing of it is left behind.

        Returns:
            Its id, and its first process's user on this host.
        """
        body = dialect.create_body(spec, terms)
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop, spec.run_id)
            container_id = self._engine.create(body, self._name(spec.run_id))
            different = dialect.differences(body, self._engine.container(container_id, dialect.own_api) or {})
            if different:
                raise RefusedError(
                    RefusalCode.ENGINE_UNFIT,
                    f"the engine changed what it was asked for: {', '.join(different)}",
                )
            if dialect.own_api is not None and dialect.drops_limits(info):
                set_limits(self._engine.prepare(container_id, dialect.own_api), body)
            self._engine.start(container_id)
            user = confirm(self._engine, container_id, held_to(body, container_id, terms, places))
            undo.pop_all()
        # One that has ended already connects no more; how it ended is seen where it is waited for.
        return container_id, terms.uid if user is None else user

    def _check(self, spec: ContainerSpec) -> dict[str, Place]:
        """Check a request's arguments; returns where the folders lie that the container is to see."""
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
        return {
            hardening.DATA: require_folder(spec.cohort_dir, self._cohorts, "the cohort's folder"),
            hardening.CONTROL: require_folder(spec.control_dir, self._control, "the control folder"),
        }

    def _require_room(self, spec: ContainerSpec) -> None:
        # Before the engine is asked: what leaves meanwhile is still in its list, and is known for what it was.
        known = self._room.inside()
        existing = self._containers()
        running = [_run_of(each) for each in existing if each.get("State") == "running"]
        self._room.enter(spec, [_run_of(each) for each in existing], running, known)

    def _watch(self, spec: ContainerSpec) -> None:
        self._kill_after(spec.wall_clock_s, spec.run_id)

    def _kill_after(self, seconds: float, run_id: str) -> None:
        timer = threading.Timer(seconds, self._time_is_over, (run_id,))
        timer.daemon = True
        self._timers[run_id] = timer
        timer.start()

    def _time_is_over(self, run_id: str) -> None:
        try:
            if self.status(run_id).state != "running":
                return
            self._timed_out.add(run_id)
            LOG.warning("container.wall_clock", extra={"run": run_id})
            self._engine.kill(self._name(run_id))
            over = self.status(run_id).state != "running"
        except UnavailableError:
            over = False
        # An engine that did not answer, or has not killed it yet, is asked again.
        if not over and run_id in self._timers:
            self._kill_after(_AGAIN_S, run_id)

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
            out_of_memory=self._dialect().out_of_memory(state),
            timed_out=run_id in self._timed_out,
            engine_changed=exited and self._started_by.get(run_id, 0) not in {0, self._engine.process()},
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
        known = self._room.inside().get(run_id)
        # From now on, also where the engine cannot remove it.
        self._room.give_up(run_id)
        self._engine.remove(self._name(run_id))
        if not self._room.has_come_back(run_id, known):
            self._room.leave(run_id)
            self._gpus.give_back(run_id)
        LOG.info("container.removed", extra={"run": run_id})

    def _forget(self, run_id: str) -> None:
        timer = self._timers.pop(run_id, None)
        if timer is not None:
            timer.cancel()
        self._timed_out.discard(run_id)
        self._started_by.pop(run_id, None)

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        """Return every container of this station."""
        return tuple(self.status(_run_of(each)) for each in self._containers())

    def remove_orphans(self) -> int:
        """Kill and remove every container of this station; returns how many."""
        found = self._containers()
        for each in found:
            self._forget(_run_of(each))
            self._engine.remove(each["Id"])
            self._room.leave(_run_of(each))
        self._gpus.orphaned(found)
        return len(found)

    def gpus(self) -> GpuReport:
        """Return every GPU of the host, and how it is."""
        return self._gpus.report(self._dialect().name, self._containers())

    def _containers(self) -> list[dict[str, Any]]:
        return self._engine.containers(self._labels)

    def _name(self, run_id: str) -> str:
        return f"pht-{self._home_label}-{run_id}"


def _run_of(container: dict[str, Any]) -> str:
    return str(container["Labels"].get(hardening.LABEL_RUN, ""))


def _whole(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0
