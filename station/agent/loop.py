"""The agent's loop: polls for messages, hands instructions to the station, delivers the answers, notices ends.

It decides nothing about a train. Threads: one polls, one sends heartbeats and asks after runs, one per run handles
that run's messages in order, so that runs do not wait for each other. A message is stored before it is confirmed and
an answer before it is sent; after a crash both are taken up again. A message that is not one of ours is dropped, and
nothing that arrives ends the loop.
"""

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from policies.errors import NetworkError, PhtError, StorageError, WireError
from policies.wire.instructions import (
    MAX_INLINE_ARRAYS_BYTES,
    Instruction,
    Kind,
    StationReply,
    Status,
    decode_instruction,
    encode,
)
from station.agent.interface import Connection, InstructionHandler, Pace
from station.agent.messages import Answer, IncomingMessage, NotAdmittedError, RunOverError, StillOnlineError
from station.agent.spool import Spool, Spooled

log = logging.getLogger(__name__)

_MAX_RUNS = 64
_MAX_UNCONFIRMED = 4096


@dataclass(slots=True)
class _Run:
    orders: set[str] = field(default_factory=set)
    inbox: "queue.SimpleQueue[Spooled | None]" = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None
    busy: bool = False
    finished: bool = False
    checked: float = 0.0
    over_since: float | None = None


class Agent:
    """Carries instructions and replies between one SuperLink and one station."""

    def __init__(
        self,
        connection: Connection,
        handler: InstructionHandler,
        state_path: Path,
        pace: Pace | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._handler = handler
        self._spool = Spool(state_path)
        self._pace = pace or Pace()
        # Ends what the handler waits for, once nothing is answered any more.
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._quiet_polls = 0
        self._unconfirmed: deque[IncomingMessage] = deque(maxlen=_MAX_UNCONFIRMED)
        self._last_contact: float | None = None
        self._threads: list[threading.Thread] = []

    @property
    def last_contact(self) -> float | None:
        """When the orchestrator last answered, seconds since the epoch; None before the first time."""
        return self._last_contact

    @property
    def active_orders(self) -> frozenset[str]:
        """Digests of the orders that runs carry now."""
        with self._lock:
            return frozenset(order for run in self._runs.values() for order in run.orders)

    def start(self) -> None:
        """Run in threads of their own until `stop`."""
        for name, target in (("agent-poll", self._poll_loop), ("agent-beat", self._beat_loop)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop polling and delivering. What is unanswered stays stored; the node stays registered and active."""
        self._stopping.set()
        self._wake.set()
        if self._interrupt is not None:
            self._interrupt()
        self._connection.interrupt()
        with self._lock:
            workers = [run.thread for run in self._runs.values() if run.thread is not None]
            for run in self._runs.values():
                run.inbox.put(None)
        deadline = time.monotonic() + timeout_s
        for thread in [*self._threads, *workers]:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._connection.close()

    # -- connecting ------------------------------------------------------------------------------------------

    def _connect(self) -> bool:
        state = self._spool.read_state()
        remembered = state.get("node_id")
        if isinstance(remembered, int) and state.get("url") == self._connection.url:
            self._connection.resume(remembered)
            try:
                self._connection.heartbeat()
            except NotAdmittedError:
                log.warning("node_id_not_known")
            else:
                return True
        node_id = self._connection.activate()
        self._spool.write_state({**self._state(), "node_id": node_id, "url": self._connection.url})
        return True

    def _connect_patiently(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._connect()
            except StillOnlineError:
                log.info("node_still_online")
            except (NetworkError, StorageError) as error:
                log.warning("not_connected", extra={"reason": str(error)})
            else:
                self._last_contact = time.time()
                log.info("connected")
                return
            failures += 1
            self._stopping.wait(_backoff(failures, ceiling_s=30.0))

    def _state(self) -> dict[str, object]:
        with self._lock:
            runs = {str(run_id): sorted(run.orders) for run_id, run in self._runs.items()}
        return {"node_id": self._connection.node_id, "url": self._connection.url, "runs": runs}

    # -- polling ---------------------------------------------------------------------------------------------

    def _poll_loop(self) -> None:
        self._connect_patiently()
        self._take_up()
        failures = 0
        while not self._stopping.is_set():
            asked = time.monotonic()
            try:
                got_one = self._poll_once()
            except NotAdmittedError as error:
                log.warning("not_admitted", extra={"reason": str(error)})
                self._stopping.wait(_backoff(failures, ceiling_s=30.0))
                self._connect_patiently()
            except (NetworkError, StorageError) as error:
                failures += 1
                log.warning("poll_failed", extra={"reason": str(error)})
                self._stopping.wait(_backoff(failures, ceiling_s=10.0))
            else:
                failures = 0
                self._last_contact = time.time()
                if not got_one:
                    # The orchestrator may hold a question for a moment: that was waiting, too.
                    self._wake.wait(max(0.0, self._delay() - (time.monotonic() - asked)))
                    self._wake.clear()

    def _poll_once(self) -> bool:
        if self._spool.is_full():
            # Answers go out first; the orchestrator's further messages wait where they are.
            return False
        messages = self._connection.poll()
        for message in messages:
            self._accept(message)
        self._quiet_polls = 0 if messages else self._quiet_polls + 1
        return bool(messages)

    def _accept(self, message: IncomingMessage) -> None:
        instruction = _understood(message)
        if instruction is None:
            log.warning("message_dropped", extra={"run_id": message.run_id})
        else:
            self._spool.keep(message)
            self._dispatch(Spooled(message, None), instruction.order_digest)
        # Stored is what counts: with the next heartbeat the SuperLink's copy can go.
        self._unconfirmed.append(message)

    def _confirm_some(self) -> None:
        while self._unconfirmed and not self._stopping.is_set():
            message = self._unconfirmed.popleft()
            try:
                self._connection.confirm(message)
            except RunOverError:
                # Its objects went with the run.
                continue

    def _dispatch(self, spooled: Spooled, order_digest: str) -> None:
        run_id = spooled.message.run_id
        with self._lock:
            run = self._runs.get(run_id)
            if run is None:
                if len(self._runs) >= _MAX_RUNS:
                    self._spool.forget(spooled.message)
                    log.warning("too_many_runs", extra={"run_id": run_id})
                    return
                run = self._runs[run_id] = _Run(checked=time.monotonic())
            new = order_digest not in run.orders
            run.orders.add(order_digest)
            run.over_since = None
            run.finished = False
            self._ensure_worker(run_id, run)
            run.inbox.put(spooled)
        if new:
            self._spool.write_state(self._state())

    def _ensure_worker(self, run_id: int, run: _Run) -> None:
        if run.thread is None or not run.thread.is_alive():
            run.thread = threading.Thread(
                target=self._work, args=(run_id, run), name=f"run-{run_id}", daemon=True
            )
            run.thread.start()

    def _take_up(self) -> None:
        """Continue what an earlier life left: unanswered messages, undelivered answers, runs at work."""
        runs = self._spool.read_state().get("runs")
        with self._lock:
            for run_id, orders in runs.items() if isinstance(runs, dict) else ():
                if run_id.isdigit() and isinstance(orders, list):
                    self._runs[int(run_id)] = _Run(orders={str(order) for order in orders})
        for spooled in self._spool.waiting():
            instruction = _understood(spooled.message)
            if instruction is None or spooled.message.expires <= time.time():
                self._spool.forget(spooled.message)
            else:
                self._dispatch(spooled, instruction.order_digest)

    def _delay(self) -> float:
        with self._lock:
            runs = [run for run in self._runs.values() if run.over_since is None and not run.finished]
            waiting = any(not run.busy for run in runs)
        if not runs:
            # Where a run has just ended, the next one is often near.
            return min(self._pace.idle_s, self._pace.slow_s * 1.05 ** min(self._quiet_polls, 200))
        if not waiting:
            return self._pace.slow_s
        return min(self._pace.slow_s, self._pace.fast_s * 1.2 ** min(self._quiet_polls, 40))

    # -- answering -------------------------------------------------------------------------------------------

    def _work(self, run_id: int, run: _Run) -> None:
        while not self._stopping.is_set():
            spooled = run.inbox.get()
            if spooled is None:
                return
            run.busy = True
            try:
                self._answer(spooled, run)
            except PhtError as error:
                # Not stored, or not in the egress ledger, so not sent: the orchestrator asks again.
                log.error("answer_not_stored", extra={"run_id": run_id, "reason": type(error).__name__})  # noqa: TRY400
            finally:
                run.busy = False
            self._quiet_polls = 0
            self._wake.set()

    def _answer(self, spooled: Spooled, run: _Run) -> None:
        message, answer = spooled.message, spooled.answer
        if answer is None:
            instruction = _understood(message)
            # Its repeats waited here while the first was computed: what nobody waits for any more costs no train's time.
            if instruction is None or message.expires <= time.time():
                self._spool.forget(message)
                return
            reply, arrays = self._ask_station(instruction, message.arrays)
            if self._stopping.is_set() and reply.status is Status.FAILED:
                # Stopped under the handler's hands: the next life answers.
                return
            answer = Answer(message.reply_to, encode(reply), arrays, time.time())
            self._spool.keep_answer(message, answer)
            log.info(
                "answered",
                extra={"run_id": message.run_id, "kind": str(reply.kind), "status": str(reply.status)},
            )
            if instruction.kind is Kind.FINISH:
                run.finished = True
        if self._deliver(message, answer):
            self._spool.forget(message)

    def _ask_station(
        self, instruction: Instruction, arrays: bytes | None
    ) -> tuple[StationReply, bytes | None]:
        try:
            reply, out = self._handler.handle(instruction, arrays)
            encode(reply)
        except PhtError as error:
            log.error("handler_fault", extra={"reason": type(error).__name__})  # noqa: TRY400
            return self._handler.fault(instruction), None
        except Exception:  # the outermost boundary of the run's thread: one run's fault must not silence it
            log.exception("handler_bug")
            return self._handler.fault(instruction), None
        if out is not None and len(out) > MAX_INLINE_ARRAYS_BYTES:
            log.error("handler_arrays_too_large")
            return self._handler.fault(instruction), None
        return reply, out

    def _deliver(self, message: IncomingMessage, answer: Answer) -> bool:
        failures = 0
        while not self._stopping.is_set():
            if message.expires <= time.time():
                log.warning("answer_expired", extra={"run_id": message.run_id})
                return True
            try:
                self._connection.reply(answer)
            except RunOverError:
                log.info("answer_not_wanted", extra={"run_id": message.run_id})
                return True
            except WireError:
                return True
            except NetworkError as error:
                failures += 1
                log.warning("answer_delayed", extra={"run_id": message.run_id, "reason": str(error)})
                self._stopping.wait(_backoff(failures, ceiling_s=10.0))
            else:
                self._last_contact = time.time()
                return True
        return False

    # -- heartbeats and ends ---------------------------------------------------------------------------------

    def _beat_loop(self) -> None:
        while not self._stopping.wait(self._pace.heartbeat_s * random.uniform(0.8, 1.0)):  # noqa: S311 - jitter
            if self._connection.node_id is None:
                continue
            try:
                self._connection.heartbeat()
                self._confirm_some()
                self._check_runs(time.monotonic())
            except (NetworkError, StorageError) as error:
                log.warning("heartbeat_failed", extra={"reason": str(error)})

    def _check_runs(self, now: float) -> None:
        with self._lock:
            due = [
                (run_id, run) for run_id, run in self._runs.items() if now - run.checked >= self._pace.check_s
            ]
        for run_id, run in due:
            run.checked = now
            if run.over_since is None and self._connection.run_is_over(run_id):
                run.over_since = now
                log.info("run_over", extra={"run_id": run_id})
        self._end_runs(now)

    def _end_runs(self, now: float) -> None:
        ended: set[str] = set()
        with self._lock:
            for run_id, run in list(self._runs.items()):
                if run.over_since is not None and (
                    run.finished or now - run.over_since >= self._pace.grace_s
                ):
                    ended |= run.orders
                    run.inbox.put(None)
                    del self._runs[run_id]
            # A run that ended may have been followed by another one for the same order.
            ended -= {order for run in self._runs.values() if run.over_since is None for order in run.orders}
        if not ended:
            return
        self._spool.write_state(self._state())
        for order in sorted(ended):
            self._tell_over(order)

    def _tell_over(self, order_digest: str) -> None:
        try:
            self._handler.run_over(order_digest)
        except PhtError as error:
            log.error("run_over_fault", extra={"reason": type(error).__name__})  # noqa: TRY400


def _understood(message: IncomingMessage) -> Instruction | None:
    if message.body is None or (message.arrays is not None and len(message.arrays) > MAX_INLINE_ARRAYS_BYTES):
        return None
    try:
        return decode_instruction(message.body)
    except WireError as error:
        log.warning("instruction_invalid", extra={"run_id": message.run_id, "reason": str(error)})
        return None


def _backoff(failures: int, *, ceiling_s: float) -> float:
    return min(ceiling_s, 0.25 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
