"""A session against everything a container can do on its socket: real sockets, and a peer in a thread for the container."""

import json
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.errors import RefusedError, StorageError
from policies.refusals import RefusalCode
from station.sandbox import unix
from station.sandbox.readers import open_to_readers
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import (
    ContainerSpec,
    ContainerStatus,
    EngineInfo,
    ExitClass,
    LoadedImage,
    ReplyLimits,
    StartedContainer,
    TrainFailure,
    TrainReply,
    TrainRequest,
    TrainStartError,
)

Script = Callable[[socket.socket], None]
HELLO = {"type": "hello", "protocol": 1, "interface": "flower"}


def message(head: object, arrays: bytes = b"") -> bytes:
    encoded = json.dumps(head).encode()
    return struct.pack(">4sIQ", b"PHT1", len(encoded), len(arrays)) + encoded + arrays


def reply(number: int = 1, **changed: Any) -> dict[str, Any]:
    return {"type": "reply", "id": number, "metrics": {}, "rows": {}, "error": None} | changed


def take(sock: socket.socket) -> dict[str, Any]:
    """Read one request without arrays."""
    head = b""
    while len(head) < 16:
        head += sock.recv(16 - len(head))
    _, length, _ = struct.unpack(">4sIQ", head)
    text = b""
    while len(text) < length:
        text += sock.recv(length - len(text))
    found: dict[str, Any] = json.loads(text)
    return found


class ThreadLauncher:
    """Simulates a launcher: its "container" is a thread of this process that connects and follows a script."""

    def __init__(
        self,
        script: Script | None,
        *,
        uid: int | None = None,
        exit_: ContainerStatus | None = None,
        container_id: str = "",
    ) -> None:
        self.script = script
        # No group of this process has a container's name; the empty one stands in every name.
        self.container_id = container_id
        self.uid = os.getuid() if uid is None else uid
        self.exit = exit_ or ContainerStatus(run_id="run-1", state="exited", exit_code=1)
        self.stopped: list[str] = []
        self.threads: list[threading.Thread] = []
        self.out_of_memory = False

    def _live(self, path: Path) -> None:
        with unix.connect(path, timeout_s=120) as sock:
            sock.settimeout(120)
            try:
                assert self.script is not None
                self.script(sock)
            except OSError:
                pass

    def start(self, spec: ContainerSpec) -> StartedContainer:
        if self.script is not None:
            path = Path(spec.control_dir) / "train.sock"
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            thread = threading.Thread(target=self._live, args=(path,))
            thread.start()
            self.threads.append(thread)
        # The simulator's "container" is this process's own user, which no real container ever is.
        return StartedContainer.model_construct(
            run_id=spec.run_id,
            container_id=self.container_id,
            image_id=spec.image_config_digest,
            uid=self.uid,
            peer_uid=self.uid,
        )

    def status(self, run_id: str) -> ContainerStatus:
        if any(thread.is_alive() for thread in self.threads):
            return ContainerStatus(run_id=run_id, state="running", out_of_memory=self.out_of_memory)
        return self.exit

    def wait(self, run_id: str, timeout_s: float) -> ContainerStatus:
        for thread in self.threads:
            thread.join(timeout_s)
        return self.status(run_id)

    def logs(self, run_id: str, max_bytes: int) -> str:
        return "what it printed"[:max_bytes]

    def stop(self, run_id: str) -> None:
        self.stopped.append(run_id)
        for thread in self.threads:
            thread.join(120)

    def engine_info(self) -> EngineInfo:
        raise AssertionError

    def load_image(self, config_digest: str) -> LoadedImage:
        raise AssertionError

    def list_runs(self) -> tuple[ContainerStatus, ...]:
        raise AssertionError

    def remove_orphans(self) -> int:
        raise AssertionError


@pytest.fixture
def spec(tmp_path: Path) -> ContainerSpec:
    (tmp_path / "cohort").mkdir()
    return ContainerSpec(
        run_id="run-1",
        image_config_digest="sha256:" + "a" * 64,
        cohort_dir=str(tmp_path / "cohort"),
        control_dir=str(tmp_path / "control"),
        memory_bytes=1 << 29,
        cpus=1.0,
        wall_clock_s=60,
    )


def begin(script: Script, spec: ContainerSpec, **launcher: Any) -> tuple[TrainSession, ThreadLauncher]:
    made = ThreadLauncher(script, **launcher)
    return TrainSandbox(made, start_timeout_s=10).start(spec), made


def ask(session: TrainSession, folder: Path, timeout_s: float = 120) -> TrainReply | TrainFailure:
    return session.exchange(
        TrainRequest("train", 1, {"lr": 0.1}), ReplyLimits(folder / "reply", 1000), timeout_s
    )


def answering(*replies: bytes) -> Script:
    def script(sock: socket.socket) -> None:
        sock.sendall(message(HELLO))
        for each in replies:
            take(sock)
            sock.sendall(each)
        while sock.recv(4096):
            pass

    return script


def test_requests_and_replies_in_turn(spec: ContainerSpec, tmp_path: Path) -> None:
    heads: list[dict[str, Any]] = []

    def script(sock: socket.socket) -> None:
        sock.sendall(message(HELLO))
        for number in (1, 2):
            heads.append(take(sock))
            sock.sendall(message(reply(number, metrics={"loss": 0.5}, rows={"t": [1]}), b"abc"))
        heads.append(take(sock))

    session, launcher = begin(script, spec)
    for _ in range(2):
        answer = ask(session, tmp_path)
        assert isinstance(answer, TrainReply)
        assert (answer.metrics, answer.rows, answer.arrays_bytes) == ({"loss": 0.5}, {"t": [1]}, 3)
        assert answer.arrays is not None
        assert answer.arrays.read_bytes() == b"abc"
    session.finish()
    assert [head["type"] for head in heads] == ["train", "train", "finish"]
    assert [head.get("id") for head in heads] == [1, 2, None]
    assert heads[0]["config"] == {"lr": 0.1}
    assert launcher.stopped == ["run-1"]
    assert not Path(spec.control_dir).exists()


@pytest.mark.parametrize(
    "first",
    [
        b"SSH-2.0",
        message({}),
        message({**HELLO, "protocol": 2}),
        message({**HELLO, "interface": "map"}),
        message({**HELLO, "interface": "command"}),
        message({**HELLO, "more": 1}),
        message(HELLO, b"arrays"),
        message({**HELLO, "pad": "x" * 5000}),
        message(reply()),
    ],
)
def test_a_wrong_hello_ends_the_start(spec: ContainerSpec, first: bytes) -> None:
    launcher = ThreadLauncher(lambda sock: sock.sendall(first))
    with pytest.raises(TrainStartError) as caught:
        TrainSandbox(launcher, start_timeout_s=10).start(spec)
    assert caught.value.failure.exit_class in {ExitClass.PROTOCOL, ExitClass.CRASH}
    assert caught.value.log == "what it printed"
    assert launcher.stopped == ["run-1"]


def test_a_container_that_ends_before_it_connects(spec: ContainerSpec) -> None:
    launcher = ThreadLauncher(None)
    with pytest.raises(TrainStartError) as caught:
        TrainSandbox(launcher, start_timeout_s=10).start(spec)
    assert caught.value.failure == TrainFailure(ExitClass.CRASH, detail="it ended with exit code 1")
    assert launcher.stopped == ["run-1"]


def test_a_container_that_never_says_hello(spec: ContainerSpec) -> None:
    launcher = ThreadLauncher(lambda sock: print(sock.recv(1)))
    with pytest.raises(TrainStartError) as caught:
        TrainSandbox(launcher, start_timeout_s=0.5).start(spec)
    assert caught.value.failure.exit_class is ExitClass.TIMEOUT


def test_another_user_is_not_served(spec: ContainerSpec) -> None:
    launcher = ThreadLauncher(answering(), uid=os.getuid() + 1)
    with pytest.raises(TrainStartError):
        TrainSandbox(launcher, start_timeout_s=1).start(spec)
    assert launcher.stopped == ["run-1"]


@pytest.mark.parametrize("uid", [os.getuid(), None])
def test_another_control_group_is_not_served(spec: ContainerSpec, uid: int | None) -> None:
    class Elsewhere(ThreadLauncher):
        def start(self, spec: ContainerSpec) -> StartedContainer:
            return super().start(spec).model_copy(update={"peer_uid": uid})

    with pytest.raises(TrainStartError):
        TrainSandbox(Elsewhere(answering(), container_id="c" * 64), start_timeout_s=1).start(spec)
    session = TrainSandbox(Elsewhere(answering()), start_timeout_s=10).start(spec)
    session.stop()


def test_a_process_that_cannot_be_seen_is_in_no_group() -> None:
    assert unix.Peer(os.getpid(), 0).is_in_cgroup_of("")
    assert not unix.Peer(0, 0).is_in_cgroup_of("")
    assert not unix.Peer(1 << 22, 0).is_in_cgroup_of("")


def test_a_refusal_of_the_launcher_reaches_the_caller(spec: ContainerSpec) -> None:
    class Refusing(ThreadLauncher):
        def start(self, spec: ContainerSpec) -> StartedContainer:
            raise RefusedError(RefusalCode.IMAGE_DIGEST, "no")

    with pytest.raises(RefusedError):
        TrainSandbox(Refusing(None)).start(spec)
    assert not Path(spec.control_dir).exists()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (message(reply(2)), "it answered another request"),
        (message(reply()) * 2, "it answered more than once"),
        (message(reply(extra=1)), "its answer has another form than a reply"),
        (message({"type": "reply"}), "its answer has another form than a reply"),
        (message(reply(id="1")), "its answer has another form than a reply"),
        (message(reply(id=True)), "its answer has another form than a reply"),
        (message(reply(error="patient name")), "its answer has another form than a reply"),
        (message(reply(error="X" * 100)), "its answer has another form than a reply"),
        (message(reply(error="E", metrics={"a": 1})), "its error came with results"),
        (message(reply(error="E"), b"abc"), "its error came with results"),
        (message(reply(), b"x" * 1001), "arrays-too-large"),
        (b"PHT1" + b"\xff" * 12, "head-too-large"),
        (struct.pack(">4sIQ", b"PHT1", 14, 0) + b'{"metrics":NaN', "not-finite"),
        (b"x" * 100, "bad-magic"),
    ],
)
def test_a_wrong_answer_ends_the_session(
    spec: ContainerSpec, tmp_path: Path, answer: bytes, detail: str
) -> None:
    session, _ = begin(answering(answer), spec)
    assert ask(session, tmp_path) == TrainFailure(ExitClass.PROTOCOL, detail=detail)
    assert not session.alive
    assert not (tmp_path / "reply").exists()
    again = ask(session, tmp_path)
    assert isinstance(again, TrainFailure)
    assert again.session_ended
    session.stop()


@pytest.mark.parametrize(
    ("kind", "head", "detail"),
    [
        ("train", {"scores": [0.5]}, "it scored what nobody asked it to score"),
        ("score", {"scores": [0.5], "error": "TOO_FEW"}, "it scored what nobody asked it to score"),
        ("score", {"scores": [0.5], "metrics": {"loss": 1}}, "its scores came with results"),
        ("score", {"scores": [0.5], "rows": {"t": [1]}}, "its scores came with results"),
        ("predict", {"rows": {"t": [1]}}, "its predictions came with rows"),
        ("predict", {"scores": [0.5]}, "it scored what nobody asked it to score"),
    ],
)
def test_scores_come_alone_and_where_they_are_asked_for(
    spec: ContainerSpec, tmp_path: Path, kind: Any, head: dict[str, Any], detail: str
) -> None:
    session, _ = begin(answering(message(reply(**head))), spec)
    answer = session.exchange(TrainRequest(kind, 1), ReplyLimits(tmp_path / "reply", 0), 60)
    assert answer == TrainFailure(ExitClass.PROTOCOL, detail=detail)
    session.stop()


def test_scores_are_read_as_they_are(spec: ContainerSpec, tmp_path: Path) -> None:
    session, _ = begin(answering(message(reply(scores=[0.5, 1, "x", None]))), spec)
    answer = session.exchange(TrainRequest("score", 1), ReplyLimits(tmp_path / "reply", 0), 60)
    assert isinstance(answer, TrainReply)
    assert answer.scores == (0.5, 1, "x", None)
    session.stop()


def test_what_was_sent_unasked_ends_the_session(spec: ContainerSpec, tmp_path: Path) -> None:
    sent = threading.Event()

    def script(sock: socket.socket) -> None:
        sock.sendall(message(HELLO) + message(reply()))
        sent.set()
        sock.recv(1)

    session, _ = begin(script, spec)
    assert sent.wait(120)
    assert ask(session, tmp_path).session_ended  # type: ignore[union-attr]
    session.stop()


def test_a_declared_error_leaves_the_session_warm(spec: ContainerSpec, tmp_path: Path) -> None:
    session, _ = begin(answering(message(reply(error="TOO_FEW_IMAGES")), message(reply(2))), spec)
    assert ask(session, tmp_path) == TrainFailure(
        ExitClass.DECLARED_ERROR, error_code="TOO_FEW_IMAGES", session_ended=False
    )
    assert isinstance(ask(session, tmp_path), TrainReply)
    session.stop()


@pytest.mark.parametrize(("hit", "expected"), [(False, ExitClass.CRASH), (True, ExitClass.OUT_OF_MEMORY)])
def test_an_uncaught_error_is_a_crash_or_a_lack_of_memory(
    spec: ContainerSpec, tmp_path: Path, hit: bool, expected: ExitClass
) -> None:
    session, launcher = begin(answering(message(reply(error="UNCAUGHT"))), spec)
    launcher.out_of_memory = hit
    answer = ask(session, tmp_path)
    assert isinstance(answer, TrainFailure)
    assert (answer.exit_class, answer.error_code, answer.session_ended) == (expected, None, False)
    session.stop()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            ContainerStatus(run_id="run-1", state="exited", exit_code=137, out_of_memory=True),
            ExitClass.OUT_OF_MEMORY,
        ),
        (ContainerStatus(run_id="run-1", state="exited", exit_code=139), ExitClass.CRASH),
        (ContainerStatus(run_id="run-1", state="exited", exit_code=137, timed_out=True), ExitClass.TIMEOUT),
        (ContainerStatus(run_id="run-1", state="absent"), ExitClass.TAKEN_AWAY),
        (
            ContainerStatus(run_id="run-1", state="exited", exit_code=137, engine_changed=True),
            ExitClass.TAKEN_AWAY,
        ),
    ],
)
def test_how_a_container_ended_is_told_apart(
    spec: ContainerSpec, tmp_path: Path, status: ContainerStatus, expected: ExitClass
) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(message(HELLO))
        take(sock)
        sock.sendall(b"PHT1")

    session, _ = begin(script, spec, exit_=status)
    answer = ask(session, tmp_path)
    assert isinstance(answer, TrainFailure)
    assert answer.exit_class is expected
    session.stop()


def test_no_answer_in_time_is_a_timeout(spec: ContainerSpec, tmp_path: Path) -> None:
    session, _ = begin(answering(), spec)
    began = time.monotonic()
    answer = ask(session, tmp_path, timeout_s=0.3)
    assert isinstance(answer, TrainFailure)
    assert answer.exit_class is ExitClass.TIMEOUT
    assert time.monotonic() - began < 60
    session.stop()


def test_stop_ends_a_request_that_waits(spec: ContainerSpec, tmp_path: Path) -> None:
    asked = threading.Event()

    def script(sock: socket.socket) -> None:
        sock.sendall(message(HELLO))
        take(sock)
        asked.set()
        sock.recv(1)

    session, _ = begin(script, spec)
    answers: list[TrainReply | TrainFailure] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(session, tmp_path, timeout_s=60)))
    waiting.start()
    assert asked.wait(120)
    session.stop()
    waiting.join(120)
    assert not waiting.is_alive()
    assert isinstance(answers[0], TrainFailure)


def test_room_for_the_longest_answer_is_asked_for_before_the_train_is(
    spec: ContainerSpec, tmp_path: Path
) -> None:
    """So that a full disk says nothing of the answer: it would be met by a train that answers with nothing, too."""
    session, _ = begin(answering(message(reply(2), b"abc")), spec)
    disk = os.statvfs(tmp_path)
    full = ReplyLimits(tmp_path / "reply", 1000, keep_free_bytes=disk.f_blocks * disk.f_frsize)
    with pytest.raises(StorageError, match="No space left"):
        session.exchange(TrainRequest("train", 1), full, 10)
    assert session.alive
    # Nobody has asked it yet: this is the first request that it takes.
    assert isinstance(ask(session, tmp_path), TrainReply)
    session.stop()


def test_an_answer_that_cannot_be_stored_is_the_train_s_failure(spec: ContainerSpec, tmp_path: Path) -> None:
    session, _ = begin(answering(message(reply(), b"abc")), spec)
    (tmp_path / "reply").mkdir()
    answer = ask(session, tmp_path)
    assert isinstance(answer, TrainFailure)
    assert answer.exit_class is ExitClass.NO_ROOM
    assert not session.alive
    session.stop()


def test_a_cohort_is_opened_to_the_container_and_no_link_is_followed(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    (cohort / "images").mkdir(parents=True, mode=0o700)
    (cohort / "images" / "a.nii").touch(mode=0o600)
    open_to_readers(cohort)
    assert stat.S_IMODE((cohort / "images").stat().st_mode) == 0o755
    assert stat.S_IMODE((cohort / "images" / "a.nii").stat().st_mode) == 0o644
    outside = tmp_path / "outside"
    outside.touch(mode=0o600)
    (cohort / "link").symlink_to(outside)
    with pytest.raises(StorageError):
        open_to_readers(cohort)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_socket_paths_may_be_long(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = folder / "train.sock"
    with (
        unix.listen(path, mode=0o600, backlog=1) as listener,
        unix.connect(path, timeout_s=120),
        listener.accept()[0] as connection,
    ):
        assert unix.peer_uid(connection) == os.getuid()
