"""One container that scores an update: started for it, asked twice, and gone. Never the one that trained.

Fresh, so that it holds nothing of what it was given before: not the cohort, not another update, not its own earlier answers. Any
thread may end it, also while it starts; then it has no answer.
"""

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pydantic import JsonValue

from policies.errors import PhtError
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

_STOP_S: Final = 30.0
_KILL_AGAIN_S: Final = 0.2
_LOG_BYTES: Final = 64 * 1024


class Containers(Protocol):
    """Whatever starts one container and ends it."""

    def start(self, spec: ContainerSpec) -> TrainSession:
        """Start a container and wait for its hello."""
        ...

    def stop(self, run_id: str) -> None:
        """Kill and remove a container; fine when it is gone already, or never was."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What is asked.

    Attributes:
        round: of the run order.
        config: the hyperparameters.
        before: the weights that the round started from.
        after: with those and what would be released.
        arrays_to: where arrays of an answer would go; none are taken.
        timeout_s: for each of the two.
    """

    round: int
    config: Mapping[str, JsonValue]
    before: Path
    after: Path
    arrays_to: Path
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What was answered: hostile code's word, for `station.egress.canary` to judge."""

    before: tuple[JsonValue, ...]
    after: tuple[JsonValue, ...]
    seconds: float


class ScoringContainer:
    """One container, from its start to its end.

    Attributes:
        log: the end of what it wrote, where it failed; for the hospital's operator alone.
    """

    def __init__(self, containers: Containers, spec: ContainerSpec) -> None:
        """Start nothing yet."""
        self._containers: Final = containers
        self._spec: Final = spec
        self._ended: Final = threading.Event()
        self._gone: Final = threading.Event()
        self._guard: Final = threading.Lock()
        self._began = False
        self.log = ""

    def ask(self, request: ScoreRequest) -> Scores | TrainFailure:
        """Start it, ask for both scores, and remove it; once.

        Raises:
            RefusedError: the launcher says no.
            UnavailableError: the launcher or the engine does not answer.
            StorageError: the disk.
        """
        with self._guard:
            if self._ended.is_set() or self._began:
                return _ENDED
            self._began = True
        try:
            return self._ask(request)
        except PhtError:
            if self._ended.is_set():
                # Killed while it was being started: what the engine said of that does not matter.
                return _ENDED
            raise
        finally:
            self._gone.set()

    def _ask(self, request: ScoreRequest) -> Scores | TrainFailure:
        began = time.monotonic()
        try:
            session = self._containers.start(self._spec)
        except TrainStartError as error:
            self.log = error.log
            return _ENDED if self._ended.is_set() else error.failure
        try:
            answers: list[tuple[JsonValue, ...]] = []
            for weights in (request.before, request.after):
                if self._ended.is_set():
                    return _ENDED
                answer = session.exchange(
                    TrainRequest("score", request.round, request.config, weights),
                    ReplyLimits(request.arrays_to, 0),
                    request.timeout_s,
                )
                if not isinstance(answer, TrainReply):
                    self._keep(session)
                    return _ENDED if self._ended.is_set() else answer
                answers.append(tuple(answer.scores))
            return Scores(answers[0], answers[1], time.monotonic() - began)
        finally:
            session.stop()

    def _keep(self, session: TrainSession) -> None:
        with contextlib.suppress(PhtError):
            self.log = session.logs(_LOG_BYTES)

    def end(self) -> None:
        """Kill it, also one that is just being started, and wait until it is gone; fine when it is, or never was.

        Raises:
            UnavailableError: the launcher or the engine does not answer; the launcher removes it when it starts again.
        """
        with self._guard:
            self._ended.set()
            if not self._began:
                return
        until = time.monotonic() + _STOP_S
        while not self._gone.is_set() and time.monotonic() < until:
            # Again, since it may have been asked for and not been there the time before.
            self._containers.stop(self._spec.run_id)
            self._gone.wait(_KILL_AGAIN_S)


_ENDED: Final = TrainFailure(ExitClass.CRASH, detail="the station ended it")
