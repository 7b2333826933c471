"""Intake's side of its workers: as many as wanted, fed, watched, and replaced when a file killed one.

A worker does its tasks in the order it got them, so when it dies the first that it had not answered is to blame. A file
that kills a worker twice is refused and the others go on; what else the dead worker had goes to another.
"""

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from station.intake.outcomes import IntakeReason
from station.intake.workers.messages import (
    ANSWER,
    HEAD,
    MAX_ANSWER_BYTES,
    Answer,
    Broken,
    MessageError,
    Ready,
    Refused,
    Setup,
    Task,
    send_document,
)
from station.intake.workers.starting import Order, Worker, start_worker

LOG = logging.getLogger("station.intake")

STRIKES = 2
_AHEAD_PER_WORKER = 4
_WINDOW_PER_WORKER = 32


@dataclass(frozen=True, slots=True)
class Finished:
    """A task and what came of it."""

    task: Task
    answer: Answer


class WorkerPool:
    """Workers with one setup. Close it when the setup changes. One caller at a time.

    Args:
        setup: what the workers work with.
        size: how many at once; they are started when there is work for them.
        timeout_s: seconds one file may take.
    """

    def __init__(self, setup: Setup, size: int, timeout_s: float) -> None:
        self._team = _Team(setup, size, timeout_s)
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            self._team.end()

    def retire(self) -> None:
        """End the workers once what they are doing is done; does not wait."""
        threading.Thread(target=self.close, name="intake-pool-end", daemon=True).start()

    def one(self, task: Task) -> Answer:
        """Do one task."""
        (finished,) = [each for group in self.run([task]) for each in group]
        return finished.answer

    def run(self, tasks: Sequence[Task]) -> Generator[list[Finished], None, None]:
        """Do tasks over the workers; yields them in their own order, as many at a time as are ready.

        Raises:
            UnavailableError: no worker can be started.
        """
        with self._lock, selectors.DefaultSelector() as selector:
            whole = False
            try:
                yield from _Run(self._team, selector, tasks).results()
                whole = True
            finally:
                if not whole:
                    # Stopped half way: what the workers still hold is nobody's any more.
                    self._team.end()


@dataclass(slots=True)
class _Team:
    setup: Setup
    size: int
    timeout_s: float
    workers: list[Worker] = field(default_factory=list)

    def end(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers.clear()


class _Run:
    """One run of tasks over a pool's workers."""

    def __init__(self, team: "_Team", selector: selectors.BaseSelector, tasks: Sequence[Task]) -> None:
        self._team = team
        self._selector = selector
        for worker in team.workers:
            selector.register(worker.connection, selectors.EVENT_READ, worker)
        self._waiting = deque(Order(index, task) for index, task in enumerate(tasks))
        self._total = len(tasks)
        self._ready: dict[int, Finished] = {}
        self._next = 0

    def results(self) -> Iterator[list[Finished]]:
        while self._next < self._total:
            self._feed()
            self._listen()
            found = self._in_order()
            if found:
                yield found

    def _in_order(self) -> list[Finished]:
        found: list[Finished] = []
        while (finished := self._ready.pop(self._next, None)) is not None:
            found.append(finished)
            self._next += 1
        return found

    def _feed(self) -> None:
        # What is far ahead of the oldest unanswered file would only wait in memory for it.
        limit = self._next + _WINDOW_PER_WORKER * self._team.size
        for depth in range(1, _AHEAD_PER_WORKER + 1):
            for number in range(self._team.size):
                if not self._waiting or self._waiting[0].index >= limit:
                    return
                workers = self._team.workers
                worker = workers[number] if number < len(workers) else self._start()
                if len(worker.given) < depth and not self._suspect(worker):
                    self._give(worker)

    def _start(self) -> Worker:
        worker = start_worker(self._team.setup, self._team.timeout_s)
        self._team.workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        return worker

    def _suspect(self, worker: Worker) -> bool:
        # A file that killed a worker is tried alone: nothing else is lost when it does it again.
        return bool(worker.given) and (worker.given[0].strikes > 0 or self._waiting[0].strikes > 0)

    def _give(self, worker: Worker) -> None:
        order = self._waiting.popleft()
        if not worker.given:
            worker.since = time.monotonic()
        worker.given.append(order)
        try:
            send_document(worker.connection, order.task)
        except MessageError:
            # It is dead, and the other end says so when it is listened to.
            return

    def _listen(self) -> None:
        now = time.monotonic()
        due = [worker.since + self._team.timeout_s for worker in self._team.workers if worker.given]
        wait = max(0.0, min(due) - now) if due else 0.0
        for key, _ in self._selector.select(wait):
            self._hear(key.data)
        now = time.monotonic()
        for worker in list(self._team.workers):
            if worker.given and now >= worker.since + self._team.timeout_s and not _has_more(worker):
                self._bury(worker, IntakeReason.PROCESSING_TIMEOUT)

    def _hear(self, worker: Worker) -> None:
        try:
            part = worker.connection.recv(1 << 20)
        except OSError:
            part = b""
        if not part:
            self._bury(worker)
            return
        worker.buffer += part
        while (answer := self._complete(worker)) is not None:
            self._take(worker, answer)
            if worker not in self._team.workers:
                return

    def _complete(self, worker: Worker) -> bytes | None:
        """Return one whole message of what has come, or None."""
        if len(worker.buffer) < HEAD.size:
            return None
        (length,) = HEAD.unpack(worker.buffer[: HEAD.size])
        if length > MAX_ANSWER_BYTES:
            return b""
        if len(worker.buffer) < HEAD.size + length:
            return None
        body = bytes(worker.buffer[HEAD.size : HEAD.size + length])
        del worker.buffer[: HEAD.size + length]
        return body

    def _take(self, worker: Worker, body: bytes) -> None:
        try:
            answer = ANSWER.validate_json(body)
        except ValidationError:
            answer = None
        if answer is None or isinstance(answer, Ready) or not worker.given:
            # It talks nonsense: whatever it met has got hold of it.
            self._bury(worker)
            return
        order = worker.given.popleft()
        worker.since = time.monotonic()
        if isinstance(answer, Broken):
            LOG.error("intake-file-broke-worker", extra={"type": answer.type, "place": answer.place})
            answer = Refused(reason=IntakeReason.PROCESSING_CRASHED)
        self._ready[order.index] = Finished(order.task, answer)

    def _bury(self, worker: Worker, reason: IntakeReason = IntakeReason.PROCESSING_CRASHED) -> None:
        """Let go of a worker that died or must; the file it was at has a strike more."""
        self._selector.unregister(worker.connection)
        self._team.workers.remove(worker)
        worker.close()
        if not worker.given:
            return
        first = worker.given[0]
        first.strikes += 1
        LOG.warning("intake-worker-died", extra={"reason": reason.value, "count": first.strikes})
        if first.strikes >= STRIKES:
            self._ready[first.index] = Finished(first.task, Refused(reason=reason))
            worker.given.popleft()
        self._waiting.extendleft(reversed(worker.given))


def _has_more(worker: Worker) -> bool:
    """Tell whether an answer lies unread: it came in time, and it is we who were late."""
    try:
        return bool(worker.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
