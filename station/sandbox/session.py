"""A train that runs: one container, one connection, one request at a time.

Compute listens in the run's control folder; the container, started by the launcher, connects. Only a process of its control
group and of its fresh user may, and only once. What it answers is read under ceilings and a deadline, and everything it can do wrong ends as a `TrainFailure` of a
closed list. Contents are not judged here: a reply is a candidate for the egress guard.
"""

import contextlib
import select
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from policies.errors import PhtError, StorageError, UnavailableError
from policies.wire.frames import FrameLimits, Pace, read_message, require_room, write_message
from policies.wire.heads import ProtocolError, ProtocolReason
from station.sandbox import unix
from station.sandbox.heads import Hello, ReplyHead, head_of, problem_with_scores
from station.sandbox.readers import open_to_readers
from station.sandbox.spec import (
    ContainerSpec,
    ContainerStatus,
    ExitClass,
    Launcher,
    ReplyLimits,
    StartedContainer,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)

SOCKET_NAME: Final = "train.sock"
UNCAUGHT: Final = "UNCAUGHT"
"""What our runtime answers when the train's code failed without one of its declared codes."""

_HELLO_BYTES: Final = 4096
_POLL_S: Final = 0.1
_AFTERMATH_S: Final = 5.0
_FINISH_S: Final = 5.0
_STRANGERS: Final = 16
_START_LOG_BYTES: Final = 64 * 1024


class Sandbox(Protocol):
    """Whatever starts trains."""

    def start(self, spec: ContainerSpec) -> "TrainSession":
        """Start a train's container and wait for its hello."""
        ...

    def stop(self, run_id: str) -> None:
        """Kill and remove a container; fine when it is gone already, or never was."""
        ...


class TrainSandbox:
    """Starts trains through a launcher; `pht-train check` gives it the one in its own process."""

    def __init__(self, launcher: Launcher, *, start_timeout_s: float = 180.0, pace: Pace = Pace()) -> None:
        """Use a launcher.

        Args:
            launcher: over its socket or in this process.
            start_timeout_s: how long a train may take from its container's start to its hello.
            pace: at which a train must take requests and give answers, once their first byte has moved.
        """
        self._launcher = launcher
        self._start_timeout_s = start_timeout_s
        self._pace = pace

    def start(self, spec: ContainerSpec) -> "TrainSession":
        """Start a train's container and wait for its hello.

        Raises:
            RefusedError: the launcher said no.
            UnavailableError: the launcher or the engine does not answer.
            StorageError: the control socket cannot be made, or the cohort not be opened to the container's user.
            TrainStartError: it started, and ended or misbehaved before its hello. Nothing is left of it then.
        """
        control = Path(spec.control_dir)
        open_to_readers(Path(spec.cohort_dir))
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(_listen(control))
            undo.callback(shutil.rmtree, control, ignore_errors=True)
            started = self._launcher.start(spec)
            undo.callback(self._launcher.stop, started.run_id)
            session = self._greet(listener, spec, started)
            undo.pop_all()
        # One connection is all there will be.
        listener.close()
        (control / SOCKET_NAME).unlink(missing_ok=True)
        return session

    def stop(self, run_id: str) -> None:
        """Kill and remove a container, also one that is just being started; fine when there is none.

        Raises:
            UnavailableError: the launcher or the engine does not answer.
        """
        self._launcher.stop(run_id)

    def _greet(
        self, listener: socket.socket, spec: ContainerSpec, started: StartedContainer
    ) -> "TrainSession":
        deadline = time.monotonic() + self._start_timeout_s
        try:
            connection = self._accept(listener, started, deadline)
            session = TrainSession(self._launcher, spec, started, connection, self._pace)
            session.await_hello(deadline)
        except TrainStartError as error:
            with contextlib.suppress(PhtError):
                error.log = self._launcher.logs(started.run_id, _START_LOG_BYTES)
            raise
        return session

    def _accept(self, listener: socket.socket, started: StartedContainer, deadline: float) -> socket.socket:
        listener.settimeout(_POLL_S)
        for _ in range(_STRANGERS):
            while True:
                try:
                    connection, _address = listener.accept()
                    break
                except TimeoutError:
                    self._require_alive(started, deadline)
            if _is_the_container(unix.peer(connection), started):
                return connection
            connection.close()
        raise TrainStartError(TrainFailure(ExitClass.PROTOCOL, detail="others connected to its socket"))

    def _require_alive(self, started: StartedContainer, deadline: float) -> None:
        status = self._launcher.status(started.run_id)
        if status.state != "running":
            raise TrainStartError(failure_of_exit(status))
        if time.monotonic() >= deadline:
            raise TrainStartError(TrainFailure(ExitClass.TIMEOUT, detail="it did not connect in time"))


class TrainSession:
    """One warm container.

    One thread at a time asks; `stop` may come from any other and ends a request that waits.
    """

    def __init__(
        self,
        launcher: Launcher,
        spec: ContainerSpec,
        started: StartedContainer,
        connection: socket.socket,
        pace: Pace = Pace(),
    ) -> None:
        """Take over the container's connection."""
        self._launcher = launcher
        self._spec = spec
        self._started = started
        self._connection = connection
        self._pace = pace
        self._next_id = 1
        self._alive = True
        self._one_at_a_time = threading.Lock()

    @property
    def run_id(self) -> str:
        """The run it serves."""
        return self._spec.run_id

    @property
    def alive(self) -> bool:
        """Whether it can take another request."""
        return self._alive

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU is leased to its container."""
        return self._started.gpu is not None

    def await_hello(self, deadline: float) -> None:
        """Read the container's first message.

        Raises:
            TrainStartError: it is no hello of the interface that the manifest names.
        """
        limits = FrameLimits(max_head_bytes=_HELLO_BYTES, max_arrays_bytes=0, pace=self._pace)
        try:
            # A hello has no arrays, so nothing is written at this path.
            received = read_message(self._connection, limits, Path("/nonexistent/hello"), deadline)
            hello = Hello.model_validate(received.head)
        except ProtocolError as error:
            raise TrainStartError(self._end(error.reason)) from error
        except ValidationError as error:
            raise TrainStartError(self._fail("its first message is no hello")) from error
        if hello.interface != self._spec.interface:
            raise TrainStartError(self._fail("its image has another interface than its manifest"))

    def exchange(
        self, request: TrainRequest, limits: ReplyLimits, timeout_s: float
    ) -> TrainReply | TrainFailure:
        """Send one request and read its answer.

        Args:
            request: what to do.
            limits: what is accepted as an answer, and where its arrays go.
            timeout_s: for sending, working and answering together.

        Returns:
            The answer, or why there is none. After a failure with `session_ended` the container takes no more requests; call
            `stop`.

        Raises:
            StorageError: the disk has no room for the longest answer that is accepted, or the request's arrays cannot be read. A
                train has no say in either: the room is asked for before the train is. What it sends and cannot be stored is a failure.
        """
        with self._one_at_a_time:
            if not self._alive:
                return TrainFailure(ExitClass.CRASH, detail="the container has ended")
            began = time.monotonic()
            deadline = began + timeout_s
            number = self._next_id
            self._next_id += 1
            if self._has_unasked_bytes():
                return self._fail("it sent something that nobody asked for")
            _require_room(limits)
            try:
                write_message(
                    self._connection,
                    head_of(request, number),
                    request.arrays,
                    deadline=deadline,
                    pace=self._pace,
                )
            except ProtocolError as error:
                return self._end(error.reason)
            except OSError as error:
                self._close()
                raise StorageError(f"arrays cannot be read: {error.strerror}") from error
            try:
                frame = FrameLimits(
                    limits.max_head_bytes, limits.max_arrays_bytes, self._pace, limits.keep_free_bytes
                )
                received = read_message(self._connection, frame, limits.arrays_to, deadline)
                head = ReplyHead.model_validate(received.head)
            except ProtocolError as error:
                return self._end(error.reason)
            except ValidationError:
                limits.arrays_to.unlink(missing_ok=True)
                return self._fail("its answer has another form than a reply")
            except OSError:
                # How long its answer is was its own to choose, and so whether there was room for it.
                self._close()
                return TrainFailure(ExitClass.NO_ROOM, detail="the disk had no room for its answer")
            problem = self._problem(head, number, received.arrays is not None)
            problem = problem or problem_with_scores(request, head, received.arrays is not None)
            if problem or head.error:
                limits.arrays_to.unlink(missing_ok=True)
            if problem:
                return self._fail(problem)
            if head.error:
                return self._declared(head.error)
            return TrainReply(
                head.metrics,
                head.rows,
                received.arrays,
                received.arrays_bytes,
                time.monotonic() - began,
                tuple(head.scores),
            )

    def _problem(self, head: ReplyHead, number: int, has_arrays: bool) -> str:
        if head.id != number:
            return "it answered another request"
        if head.error and (head.metrics or head.rows or has_arrays):
            return "its error came with results"
        if self._has_unasked_bytes():
            return "it answered more than once"
        return ""

    def _has_unasked_bytes(self) -> bool:
        waiting = select.poll()
        waiting.register(self._connection, select.POLLIN)
        if not waiting.poll(0):
            return False
        try:
            self._connection.setblocking(False)
            return bool(self._connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False  # closed: the request will show how

    def _declared(self, code: str) -> TrainFailure:
        if code != UNCAUGHT:
            return TrainFailure(ExitClass.DECLARED_ERROR, error_code=code, session_ended=False)
        if self._status().out_of_memory:
            return TrainFailure(
                ExitClass.OUT_OF_MEMORY, detail="one of its processes hit the limit", session_ended=False
            )
        return TrainFailure(ExitClass.CRASH, detail="its code failed; its log says how", session_ended=False)

    def _end(self, reason: ProtocolReason) -> TrainFailure:
        """Say why a request has no answer, from how the message ended and what became of the container."""
        self._close()
        if reason is ProtocolReason.TIMEOUT:
            return TrainFailure(ExitClass.TIMEOUT, detail="it did not answer in time")
        if reason in {ProtocolReason.CLOSED, ProtocolReason.TRUNCATED}:
            try:
                status = self._launcher.wait(self.run_id, _AFTERMATH_S)
                if status.state != "running":
                    return failure_of_exit(status)
            except UnavailableError:
                return TrainFailure(ExitClass.TAKEN_AWAY, detail="the launcher or the engine is away")
        return TrainFailure(ExitClass.PROTOCOL, detail=reason.value)

    def _fail(self, detail: str) -> TrainFailure:
        self._close()
        return TrainFailure(ExitClass.PROTOCOL, detail=detail)

    def _status(self) -> ContainerStatus:
        return self._launcher.status(self.run_id)

    def _close(self) -> None:
        self._alive = False
        self._connection.close()

    def logs(self, max_bytes: int = 64 * 1024) -> str:
        """Return the end of what the train wrote: for this hospital's operator and nobody else."""
        return self._launcher.logs(self.run_id, max_bytes)

    def finish(self) -> None:
        """Let the train end by itself for a moment, then stop it."""
        with contextlib.suppress(ProtocolError, OSError, PhtError), self._one_at_a_time:
            if self._alive:
                write_message(
                    self._connection, {"type": "finish"}, None, deadline=time.monotonic() + _FINISH_S
                )
                self._launcher.wait(self.run_id, _FINISH_S)
        self.stop()

    def stop(self) -> None:
        """Kill and remove the container, with its scratch, and clear its control folder.

        Raises:
            UnavailableError: the launcher or the engine does not answer; the launcher removes it when it starts again.
        """
        self._alive = False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        try:
            self._launcher.stop(self.run_id)
        finally:
            self._connection.close()
            shutil.rmtree(self._spec.control_dir, ignore_errors=True)


def _require_room(limits: ReplyLimits) -> None:
    if not limits.max_arrays_bytes:
        return
    try:
        require_room(limits.arrays_to.parent, limits.max_arrays_bytes + limits.keep_free_bytes)
    except OSError as error:
        raise StorageError(
            f"there is no room for an answer: {error.strerror}", hint="Free disk space."
        ) from error


def failure_of_exit(status: ContainerStatus) -> TrainFailure:
    """Say why a container that has ended did so."""
    if status.state == "absent" or status.engine_changed:
        # A train can end, not vanish: launchers remove what is left over when they start, engines end what they find.
        return TrainFailure(ExitClass.TAKEN_AWAY, detail="it went with the launcher or the engine")
    if status.timed_out:
        return TrainFailure(ExitClass.TIMEOUT, detail="its wall clock ran out")
    if status.out_of_memory:
        return TrainFailure(ExitClass.OUT_OF_MEMORY, detail="it hit its memory limit")
    return TrainFailure(ExitClass.CRASH, detail=f"it ended with exit code {status.exit_code}")


def _is_the_container(peer: unix.Peer, started: StartedContainer) -> bool:
    """Whether who connected is the container: by its user, and by the control group, which only the engine decides.

    Under gVisor it is a helper of the runtime that connects, of the engine's own user but inside the container's group.
    """
    of_its_user = started.peer_uid is None or peer.uid == started.peer_uid
    return of_its_user and peer.is_in_cgroup_of(started.container_id)


def _listen(control: Path) -> socket.socket:
    """Listen in a run's control folder, so that any user may connect: who it is the kernel says afterwards.

    The folder is reached through the container's mount or by this service only; its parents are closed to others.
    """
    try:
        control.mkdir(parents=True, exist_ok=True)
        control.chmod(0o711)
        return unix.listen(control / SOCKET_NAME, mode=0o666, backlog=4)
    except OSError as error:
        raise StorageError(f"a train's control socket cannot be made: {error.strerror}") from error
