"""A map train: a fresh container for each patient, several side by side, each used once and removed.

    patient -> folder of their own -> container -> one row -> kept as a number per column -> container and folder gone -> the next

To whoever gives messages it looks like a warm container: asked once a message, it answers with what was counted over all patients.
Invariants: no container is given two patients, and none starts in what another left; what a program fails on is counted and the
message goes on, up to a share; a message has one deadline for all of its patients; when it ends otherwise, nothing of what was
counted is left. Memory grows with patients by some numbers each (`station.egress.analyses.tally`), their images pass one by one.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from policies.errors import PhtError, StateError
from policies.manifest import TrainManifest
from station.cohorts import OnePatient
from station.cohorts.roster import Roster
from station.egress.analyses.tally import Tally
from station.sandbox.session import TrainSession
from station.sandbox.spec import (
    ContainerSpec,
    ExitClass,
    ReplyLimits,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)

log = logging.getLogger(__name__)

MAX_ROW_BYTES: Final = 64 * 1024

_START_S: Final = 60.0
_STOP_S: Final = 30.0
_KILL_AGAIN_S: Final = 0.2
_CUT_S: Final = 2.0
"""A container's wall clock is in whole seconds and ends up to one before its message; what ends so late may have been cut short."""
_LOG_BYTES: Final = 8 * 1024
_LOGS: Final = 8


class Containers(Protocol):
    """Whatever starts one container and ends it."""

    def start(self, spec: ContainerSpec) -> TrainSession:
        """Start a container and wait for its hello."""
        ...

    def stop(self, run_id: str) -> None:
        """Kill and remove a container; fine when it is gone already, or never was."""
        ...


class Folders(Protocol):
    """Whatever lays out one patient at a time; `station.cohorts.PatientFolders`."""

    @property
    def patients(self) -> int:
        """How many there are."""
        ...

    def shuffled(self) -> Iterator[OnePatient]:
        """Yield each once, in an order drawn anew."""
        ...

    def lay(self, one: OnePatient) -> Path:
        """Write one patient's folder."""
        ...

    def remove(self, folder: Path) -> None:
        """Wipe it."""
        ...


@dataclass(frozen=True, slots=True)
class MapTerms:
    """How a map train is run.

    Attributes:
        spec: of every container, but for its name and folders.
        manifest: the train's: its rows, aggregates and error codes.
        roster: the cohort's patients, who are counted by it.
        at_once: containers side by side; their sum stays within what one train may use.
        failed_share: of the patients; when more fail, the message has failed.
        fewest_failures: with which it has; that it failed is told, and is to tell no small number of patients.
    """

    spec: ContainerSpec
    manifest: TrainManifest
    roster: Roster
    at_once: int
    failed_share: float
    fewest_failures: int = 1


@dataclass(frozen=True, slots=True)
class MapReply:
    """What was counted over all patients: for the egress guard.

    Attributes:
        tally: the station's own counts.
        seconds: from asking to the last row.
    """

    tally: Tally
    seconds: float


@dataclass(slots=True)
class _Message:
    """One message under way; its lock is held for a moment at a time."""

    request: TrainRequest
    waiting: Iterator[OnePatient]
    tally: Tally
    deadline: float
    most_failures: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    failure: TrainFailure | None = None
    fault: PhtError | OSError | None = None

    @property
    def over(self) -> bool:
        return self.failure is not None or self.fault is not None

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def end_if_late(self) -> None:
        """End it with its own timeout: what comes from now on may be cut short by it, and is no patient's own end."""
        if self.left_s <= _CUT_S:
            self.end(TrainFailure(ExitClass.TIMEOUT, detail="not every patient was done in time"))

    def take(self) -> OnePatient | None:
        with self.lock:
            self.end_if_late()
            return None if self.over else next(self.waiting, None)

    def count(self, one: OnePatient, answer: TrainReply | TrainFailure) -> bool:
        """Count one patient's answer; returns whether it was a row."""
        with self.lock:
            self.end_if_late()
            if isinstance(answer, TrainReply):
                # A row and nothing else: what a program says beside it makes it none.
                alone = not answer.rows and answer.arrays is None
                good = self.tally.answered(one.patient, answer.metrics if alone else None)
            else:
                self.tally.failed(one.patient, answer.error_code or answer.exit_class.value)
                good = False
            if self.tally.failures > self.most_failures:
                self.end(TrainFailure(ExitClass.PATIENTS_FAILED, detail="it failed for too many patients"))
            return good

    def end(self, why: TrainFailure | PhtError | OSError) -> None:
        if self.over:
            return
        if isinstance(why, TrainFailure):
            self.failure = why
        else:
            self.fault = why


class MapSession:
    """A prepared map train; the surface of `TrainSession`.

    One thread at a time asks; `stop` may come from any other, ends every container, and what was counted is dropped.
    """

    def __init__(self, containers: Containers, folders: Folders, terms: MapTerms) -> None:
        """Start nothing yet: a container is made for a patient, and there is none before the first message."""
        self._containers: Final = containers
        self._folders: Final = folders
        self._terms: Final = terms
        self._live: Final[set[str]] = set()
        self._changed: Final = threading.Condition()
        self._stopped = threading.Event()
        self._one_at_a_time: Final = threading.Lock()
        self._logs: Final[deque[str]] = deque(maxlen=_LOGS)

    @property
    def run_id(self) -> str:
        """The run it serves."""
        return self._terms.spec.run_id

    @property
    def alive(self) -> bool:
        """Whether it can take another message."""
        return not self._stopped.is_set()

    def exchange(
        self, request: TrainRequest, limits: ReplyLimits, timeout_s: float
    ) -> MapReply | TrainFailure:
        """Ask for a row of every patient and count them.

        Args:
            request: what every container is asked.
            limits: where another train's arrays would go; a map train has none.
            timeout_s: for all patients together; at most what is left of the run's own time, which the caller counts.

        Returns:
            What was counted, or why the message failed; then nothing was.

        Raises:
            RefusedError: the launcher refuses a container.
            UnavailableError: the launcher or the engine does not answer.
            StorageError: a patient's folder or socket cannot be made.
        """
        with self._one_at_a_time:
            began = time.monotonic()
            message = _Message(
                request,
                self._folders.shuffled(),
                Tally(self._terms.manifest, self._terms.roster),
                began + min(timeout_s, self._terms.spec.wall_clock_s),
                max(self._terms.failed_share * self._folders.patients, self._terms.fewest_failures - 1),
            )
            workers = [
                threading.Thread(target=self._work, args=(message, limits), daemon=True, name="map")
                for _ in range(max(1, min(self._terms.at_once, self._folders.patients)))
            ]
            _run(workers, message)
            if self._stopped.is_set():
                return TrainFailure(ExitClass.CRASH, detail="the station ended it")
            if message.fault is not None:
                raise message.fault
            if message.failure is not None:
                return message.failure
            if sum(message.tally.ends.values()) != self._folders.patients:
                # Counts of some patients beside counts of all would tell those who are missing.
                raise StateError("not every patient was counted; nothing of the others is told")
            return MapReply(message.tally, time.monotonic() - began)

    def _work(self, message: _Message, limits: ReplyLimits) -> None:
        try:
            self._one_after_another(message, limits)
        except (PhtError, OSError) as error:
            with message.lock:
                message.end(error)
        except Exception:  # the outermost boundary of this thread: the message ends with it
            log.exception("map.bug")
            with message.lock:
                message.end(StateError("a patient's turn ended in a fault of the station"))

    def _one_after_another(self, message: _Message, limits: ReplyLimits) -> None:
        while not self._stopped.is_set() and (one := message.take()) is not None:
            answer = self._one(message, one, limits)
            if self._stopped.is_set():
                # Killed by the station: not the program's failure, and nothing that was counted is used.
                return
            message.count(one, answer)

    def _one(self, message: _Message, one: OnePatient, limits: ReplyLimits) -> TrainReply | TrainFailure:
        """Give one patient to one container, and leave nothing of either."""
        rows = self._terms.manifest.outputs.rows
        patience = min(message.left_s, float(rows.patient_timeout_s) if rows is not None else 0.0)
        run_id = f"{self.run_id}-{secrets.token_hex(8)}"
        folder = self._folders.lay(one)
        try:
            spec = self._terms.spec.model_copy(
                update={
                    "run_id": run_id,
                    "series": self.run_id,
                    "cohort_dir": str(folder),
                    "control_dir": str(Path(self._terms.spec.control_dir).with_name(run_id)),
                    # Also where it never says hello, a container does not outlive its message.
                    "wall_clock_s": max(1, int(min(patience + _START_S, message.left_s))),
                }
            )
            return self._ask(spec, message.request, limits, patience)
        finally:
            self._folders.remove(folder)

    def _ask(
        self, spec: ContainerSpec, request: TrainRequest, limits: ReplyLimits, patience_s: float
    ) -> TrainReply | TrainFailure:
        with self._changed:
            self._live.add(spec.run_id)
        try:
            try:
                session = self._containers.start(spec)
            except TrainStartError as error:
                self._keep(error.log)
                return error.failure
            with contextlib.closing(_Stopping(session)):
                if self._stopped.is_set():
                    return TrainFailure(ExitClass.CRASH, detail="the station ended it")
                to = limits.arrays_to.with_name(f"{spec.run_id}.row")
                answer = session.exchange(request, ReplyLimits(to, 0, MAX_ROW_BYTES), patience_s)
                if isinstance(answer, TrainFailure) and not self._stopped.is_set():
                    with contextlib.suppress(PhtError):
                        self._keep(session.logs(_LOG_BYTES))
                return answer
        finally:
            with self._changed:
                self._live.discard(spec.run_id)
                self._changed.notify_all()

    def _keep(self, log: str) -> None:
        self._logs.append(log[-_LOG_BYTES:])

    def logs(self, max_bytes: int = 64 * 1024) -> str:
        """Return what the last containers that failed wrote: for this hospital's operator and nobody else."""
        return "\n".join(list(self._logs))[-max_bytes:]

    def finish(self) -> None:
        """End it; between messages there is nothing to wait for."""
        self.stop()

    def stop(self) -> None:
        """Kill and remove every container, also one that is just being started.

        Raises:
            UnavailableError: the launcher or the engine does not answer; the launcher removes them when it starts again.
        """
        self._stopped.set()
        until = time.monotonic() + _STOP_S
        with self._changed:
            live = set(self._live)
        while live and time.monotonic() < until:
            # Again, since one may have been asked for and not been there the time before.
            for run_id in live:
                self._containers.stop(run_id)
            with self._changed:
                self._changed.wait_for(lambda: not self._live, timeout=_KILL_AGAIN_S)
                live = set(self._live)


def _run(workers: list[threading.Thread], message: _Message) -> None:
    """Start them and wait for all; where one cannot be started, those that were end with the patient they are at."""
    started: list[threading.Thread] = []
    try:
        for worker in workers:
            worker.start()
            started.append(worker)
    except RuntimeError:
        with message.lock:
            message.end(StateError("this host starts no more threads"))
    for worker in started:
        worker.join()


class _Stopping:
    """Closes by stopping."""

    def __init__(self, session: TrainSession) -> None:
        self._session = session

    def close(self) -> None:
        self._session.stop()
