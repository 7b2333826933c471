"""Runs the attacks: the real launcher, the real session, the real readers, one hostile train.

Attacks that leave nothing behind share a container; bombs and lies have one of their own. Every container, folder and bait is
gone when an attack is over, also where the operator interrupts.
"""

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

from pydantic import JsonValue

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.gpu.model import GpuNeed
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import (
    MIB,
    ContainerSpec,
    ExitClass,
    Launcher,
    LauncherSettings,
    ReplyLimits,
    StartedContainer,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)
from station.selftest import judging, outside
from station.selftest.attacks import Attack
from station.selftest.ground import Ground
from station.selftest.releasing import release_of
from station.selftest.report import Attempt, Line

_START_S: Final = 120.0
_PROBE_S: Final = 90.0
_ANSWER_S: Final = 30.0
_LIE_S: Final = 4.0
_LARGE: Final = 64 * MIB
_KILLED: Final = 137
_CASE: Final = "case-0001.bin"


class Noting:
    """A launcher that remembers what it started last, and is the given one otherwise."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.started: StartedContainer | None = None

    def start(self, spec: ContainerSpec) -> StartedContainer:
        """Start a container."""
        self.started = self._launcher.start(spec)
        return self.started

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever verb it is
        return getattr(self._launcher, name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the hostile train runs.

    Attributes:
        launcher: who starts it.
        compute: the folder with ``cohorts`` and ``control``.
        image: its config's digest.
        marker: the text by which the train knows its image.
        settings: the station's ceilings.
        owner: to whom the folders are given, where the launcher runs as another user; ``None`` leaves them.
        paths: what the probes are told of this host's own paths.
    """

    launcher: Launcher
    compute: Path
    image: str
    marker: str
    settings: LauncherSettings
    owner: tuple[int, int] | None
    paths: Mapping[str, JsonValue]


class Selftest:
    """Runs attacks, one after the other.

    Args:
        place: where.
        ground: the baits.
        work: a folder for what the train answers.
    """

    def __init__(self, place: Place, ground: Ground, work: Path) -> None:
        self._place, self._ground, self._work = place, ground, work
        self._launcher = Noting(place.launcher)
        self._shared: TrainSession | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_how: object) -> None:
        self._end_shared()

    def run(self, number: int, attack: Attack) -> Line:
        """Run one attack.

        Raises:
            RefusedError: the launcher does not start the hostile train at all, for another reason than the attack.
            UnavailableError: the launcher or the engine does not answer.
        """
        began = time.monotonic()
        attempts = self._attempts(attack)
        verdict, why = judging.verdict_of(attempts)
        seconds = round(time.monotonic() - began, 2)
        return Line(
            number=number, area=attack.area, name=attack.name, tried=attack.tried, stopped_by=why, verdict=verdict,
            attempts=attempts, seconds=seconds,
        )  # fmt: skip

    def _attempts(self, attack: Attack) -> tuple[Attempt, ...]:
        ways: dict[str, Callable[[Attack], tuple[Attempt, ...]]] = {
            "probe": self._probe,
            "before": self._before,
            "lie": self._lie,
            "host": self._from_the_host,
            "gpu": self._gpu,
        }
        return ways[attack.kind](attack)

    # Probes: code in the container

    def _probe(self, attack: Attack) -> tuple[Attempt, ...]:
        if attack.alone or attack.changed:
            with self.session(attack) as session:
                return self._probed(session, attack)
        return self._probed(self._warm(), attack)

    def _probed(self, session: TrainSession, attack: Attack) -> tuple[Attempt, ...]:
        before = outside.look(attack.outside, self._ground)
        answer = self.ask(
            session, {"probe": attack.action, "given": self._given(attack), "timeout_s": _PROBE_S}
        )
        if attack.may_be_killed and isinstance(answer, TrainFailure):
            answer = self._how_it_ended(session, answer)
        inside = judging.of_probe(attack.tried, answer, may_be_killed=attack.may_be_killed)
        container = self._launcher.started.container_id if self._launcher.started else ""
        seen = outside.judge(attack.outside, before, self._ground, self._place, container)
        return (*inside, *seen)

    def _how_it_ended(self, session: TrainSession, answer: TrainFailure) -> TrainFailure:
        """Wait for the engine's word on a train that was killed: it may come after the connection's end."""
        status = self._launcher.wait(session.run_id, _PROBE_S)
        if status.out_of_memory or status.exit_code == _KILLED:
            return TrainFailure(ExitClass.OUT_OF_MEMORY, detail="the whole container, at its memory limit")
        return answer

    def _given(self, attack: Attack) -> dict[str, JsonValue]:
        spec = self._spec(attack, Path("/x"), Path("/y"))
        uid = self._launcher.started.uid if self._launcher.started else -1
        return {
            **self._ground.given,
            **self._place.paths,
            "marker": self._place.marker,
            "uid": uid,
            "memory_bytes": spec.memory_bytes,
            "scratch_bytes": spec.scratch_bytes,
            "pids": spec.pids,
            "cpus": spec.cpus,
            **attack.given,
        }

    def ask(
        self,
        session: TrainSession,
        config: dict[str, JsonValue],
        *,
        timeout_s: float = _PROBE_S + _ANSWER_S,
        large: bool = False,
    ) -> TrainReply | TrainFailure:
        """Send the hostile train one request."""
        limits = ReplyLimits(self._work / "reply.safetensors", _LARGE if large else MIB)
        return session.exchange(TrainRequest("analyse", 1, config), limits, timeout_s)

    # Lies: answers that are none

    def _before(self, attack: Attack) -> tuple[Attempt, ...]:
        try:
            with self.session(attack) as session:
                outcome = self.ask(session, {"lie": "silence"}, timeout_s=_LIE_S)
                return judging.of_lie(attack.tried, outcome)
        except TrainStartError as error:
            return judging.of_lie(attack.tried, error.failure)

    def _lie(self, attack: Attack) -> tuple[Attempt, ...]:
        with self.session(attack) as session:
            large = bool(attack.given.get("large"))
            config: dict[str, JsonValue] = {"lie": attack.action}
            outcome = self.ask(session, config, timeout_s=_ANSWER_S if large else _LIE_S, large=large)
            if isinstance(outcome, TrainReply):
                refused = "" if outcome.arrays is None else release_of(outcome.arrays, self._work)
                if refused:
                    return (judging.stopped(attack.tried, refused),)
                # What came too late to be seen behind this answer stands before the next one.
                outcome = self.ask(session, config, timeout_s=_LIE_S)
            return judging.of_lie(attack.tried, outcome)

    # What this host does

    def _from_the_host(self, attack: Attack) -> tuple[Attempt, ...]:
        if attack.name == "wall-clock":
            with self.session(attack) as session:
                outcome = self.ask(session, {"lie": "silence"}, timeout_s=_ANSWER_S)
                timed_out = self._launcher.status(session.run_id).timed_out
                return outside.of_wall_clock(attack.tried, outcome, timed_out=timed_out)
        return outside.strangers(attack.tried, self._start_with_strangers(attack))

    def _start_with_strangers(self, attack: Attack) -> outside.Strangers:
        with self._folders(attack) as spec, outside.Strangers(Path(spec.control_dir)) as strangers:
            session = TrainSandbox(cast("Launcher", self._launcher), start_timeout_s=_START_S).start(spec)
            try:
                strangers.served = session.alive
                strangers.wait()
                answer = self.ask(session, {"probe": "keyring", "given": {}, "timeout_s": _PROBE_S})
                strangers.served = isinstance(answer, TrainReply)
            finally:
                session.stop()
        return strangers

    def _gpu(self, attack: Attack) -> tuple[Attempt, ...]:
        if why := outside.why_no_gpu(self._place.launcher):
            return (judging.skipped(attack.tried, why),)
        marked = self._on_a_gpu(attack, "gpu-mark")
        # The launcher leases the smallest device first, so the second train gets the one that the first had.
        found = self._on_a_gpu(attack, "gpu-residue") + self._on_a_gpu(attack, "gpu-others")
        return outside.of_gpu(attack.tried, marked, found)

    def _on_a_gpu(self, attack: Attack, probe: str) -> tuple[Attempt, ...]:
        self._end_shared()
        with self._folders(attack) as spec:
            session = self._start(spec.model_copy(update={"gpu": GpuNeed()}))
            try:
                answer = self.ask(session, {"probe": probe, "given": {}, "timeout_s": _PROBE_S})
                return judging.of_probe(attack.tried, answer, may_be_killed=False)
            finally:
                session.stop()

    # Containers

    @contextlib.contextmanager
    def session(self, attack: Attack) -> Iterator[TrainSession]:
        """Yield a container for one attack."""
        self._end_shared()
        with self._folders(attack) as spec:
            session = self._start(spec)
            try:
                yield session
            finally:
                session.stop()

    def _start(self, spec: ContainerSpec) -> TrainSession:
        try:
            return TrainSandbox(cast("Launcher", self._launcher), start_timeout_s=_START_S).start(spec)
        except RefusedError as error:
            if error.code == RefusalCode.RESOURCES_BUSY:
                raise RefusedError(
                    error.code,
                    error.message,
                    hint="A train runs: try again when `pht-station runs` shows none.",
                ) from error
            raise

    def _warm(self) -> TrainSession:
        if self._shared is None or not self._shared.alive:
            self._end_shared()
            spec = self._stack.enter_context(self._folders(Attack("shared", "", "")))
            self._shared = self._start(spec)
        return self._shared

    def _end_shared(self) -> None:
        shared, self._shared = self._shared, None
        try:
            if shared is not None:
                shared.stop()
        finally:
            self._stack.close()

    def _spec(self, attack: Attack, cohort: Path, control: Path) -> ContainerSpec:
        settings = self._place.settings
        values: dict[str, Any] = {
            "run_id": cohort.name,
            "image_config_digest": self._place.image,
            "cohort_dir": str(cohort),
            "control_dir": str(control),
            "memory_bytes": min(512 * MIB, settings.max_memory_bytes),
            "cpus": min(1.0, settings.max_cpus),
            "pids": min(64, settings.max_pids),
            "scratch_bytes": min(32 * MIB, settings.max_scratch_bytes),
            "wall_clock_s": min(300, settings.max_wall_clock_s),
            "series": "selftest",
        }
        changed = {
            name: min(value, getattr(settings, f"max_{name}")) if isinstance(value, int | float) else value
            for name, value in attack.changed.items()
        }
        if cohort == Path("/x"):
            values["run_id"] = "selftest"
        return ContainerSpec.model_validate(values | changed)

    @contextlib.contextmanager
    def _folders(self, attack: Attack) -> Iterator[ContainerSpec]:
        """Make a cohort and a control folder that are nobody's data."""
        run_id = f"selftest-{secrets.token_hex(6)}"
        cohort = self._place.compute / "cohorts" / run_id
        control = self._place.compute / "control" / run_id
        try:
            _write(cohort / "datalist.json", b'{"training": []}')
            _write(cohort / "images" / _CASE, b"nobody's image")
            if attack.kind == "before":
                _write(cohort / "before.json", b'{"lie": "%s"}' % attack.action.encode())
            # Anybody may write: what stands in the way is the mount.
            for folder in (cohort, cohort / "images"):
                folder.chmod(0o777)
            if self._place.owner is not None:
                outside.give(cohort, self._place.owner)
            yield self._spec(attack, cohort, control)
        finally:
            shutil.rmtree(cohort, ignore_errors=True)
            shutil.rmtree(control, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o666)
