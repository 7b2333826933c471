"""The launcher and compute as users of their own, and a third one who is turned away."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandbox_kit import Station

from policies.errors import UnavailableError
from station.sandbox import unix
from station.sandbox.launcher.client import LauncherClient
from station.sandbox.launcher.service import serve
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import MIB, ContainerSpec, LauncherSettings, ReplyLimits, TrainReply, TrainRequest

pytestmark = pytest.mark.docker

# As root these become users of their own; otherwise everything is the one user who runs the tests.
ROOT = os.getuid() == 0
LAUNCHER, COMPUTE, STRANGER, SHARED_GROUP = 64_001, 64_002, 64_003, 64_000


def in_child(work: Callable[[], object], uid: int, *groups: int) -> int:
    """Run something in a process of another user; returns the process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if ROOT:
            os.setgroups(groups)
            os.setgid(SHARED_GROUP)
            os.setuid(uid)
        os.umask(0o027)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - the test reads the code, a person reads the text
        traceback.print_exc()
    finally:
        os._exit(code)


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def home(station: Station) -> Iterator[Path]:
    """A station's folder with the owners and modes that `pht-station init` gives as root."""
    made = Path(tempfile.mkdtemp(prefix="pht-users-"))
    made.chmod(0o755)
    (made / "run").mkdir()
    (made / "compute").mkdir()
    blobs = made / "compute" / "layers" / "sha256"
    blobs.mkdir(parents=True)
    for blob in (station.store.root / "sha256").iterdir():
        (blobs / blob.name).hardlink_to(blob)
    if ROOT:
        for path in (made / "compute", *(made / "compute").rglob("*")):
            os.chown(path, COMPUTE, SHARED_GROUP)
        os.chown(made / "run", 0, SHARED_GROUP)
    for path in (made / "compute", blobs, blobs.parent):
        path.chmod(0o750)
    (made / "run").chmod(0o1770)
    try:
        yield made
    finally:
        if ROOT:
            for blob in (station.store.root / "sha256").iterdir():
                os.chown(blob, 0, 0)
        shutil.rmtree(made)


@contextlib.contextmanager
def launcher_of(home: Path) -> Iterator[LauncherClient]:
    settings = LauncherSettings(station="test-users", compute_uid=COMPUTE if ROOT else os.getuid())
    engine_group = settings.engine_socket.stat().st_gid
    child = in_child(lambda: serve(home, settings), LAUNCHER, engine_group, SHARED_GROUP)
    path = home / "run" / "launcher.sock"
    deadline = time.monotonic() + 180
    while not path.is_socket():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
    try:
        yield LauncherClient(path)
    finally:
        os.kill(child, signal.SIGTERM)
        assert code_of(child) == 0


def test_a_train_runs_for_two_users_who_share_only_a_group(station: Station, home: Path) -> None:
    def compute() -> None:
        cohort = home / "compute" / "cohorts" / "run-1"
        cohort.mkdir(parents=True)
        (cohort / "datalist.json").write_text("{}")
        spec = ContainerSpec(
            run_id="run-1",
            image_config_digest=station.config_digest,
            cohort_dir=str(cohort),
            control_dir=str(home / "compute" / "control" / "run-1"),
            memory_bytes=512 * MIB,
            cpus=1.0,
            scratch_bytes=16 * MIB,
            wall_clock_s=120,
        )
        session = TrainSandbox(LauncherClient(home / "run" / "launcher.sock"), start_timeout_s=180).start(
            spec
        )
        try:
            code = "metrics['read'] = len(open('/train/data/datalist.json').read())"
            limits = ReplyLimits(home / "compute" / "reply", MIB)
            answer = session.exchange(TrainRequest("train", 1, {"code": code}), limits, 60)
            if not isinstance(answer, TrainReply) or answer.metrics != {"read": 2}:
                raise AssertionError(answer)
        finally:
            session.stop()

    with launcher_of(home) as client:
        assert code_of(in_child(compute, COMPUTE, SHARED_GROUP)) == 0
        assert client.list_runs() == ()


def test_the_kernels_word_on_the_peer_decides(home: Path) -> None:
    def stranger() -> None:
        try:
            LauncherClient(home / "run" / "launcher.sock").list_runs()
        except UnavailableError:
            return
        raise AssertionError("the launcher answered a stranger")

    with launcher_of(home):
        # In the group, so that the socket's mode lets it in: only its user keeps it out.
        (home / "run" / "launcher.sock").chmod(0o666)
        if ROOT:
            assert code_of(in_child(stranger, STRANGER, SHARED_GROUP)) == 0


def test_who_is_at_the_other_end_is_the_kernels_word(home: Path) -> None:
    seen = []
    with unix.listen(home / "run" / "some.sock", mode=0o666, backlog=1) as listener:
        child = in_child(
            lambda: unix.connect(home / "run" / "some.sock", timeout_s=120).recv(1), STRANGER, SHARED_GROUP
        )
        listener.settimeout(120)
        with listener.accept()[0] as connection:
            seen.append(unix.peer_uid(connection))
    code_of(child)
    assert seen == [STRANGER if ROOT else os.getuid()]
