"""One contract for the launcher's verbs, held by the one in this process and by the one behind its socket."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_kit import Station, logged

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox import unix
from station.sandbox.launcher.client import LauncherClient
from station.sandbox.launcher.service import local_launcher, serve
from station.sandbox.session import TrainSandbox
from station.sandbox.spec import MIB, Launcher, ReplyLimits, TrainReply, TrainRequest

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def behind_socket(station: Station) -> Iterator[Launcher]:
    stop = threading.Event()
    serving = threading.Thread(target=serve, args=(station.home, station.settings), kwargs={"stop": stop})
    serving.start()
    path = station.home / "run" / "launcher.sock"
    waiting = threading.Event()
    deadline = time.monotonic() + 180
    while not path.is_socket() and time.monotonic() < deadline:
        waiting.wait(0.05)
    yield LauncherClient(path)
    stop.set()
    serving.join(120)
    assert not path.exists()


@pytest.fixture(params=["local", "socket"])
def launcher(request: pytest.FixtureRequest, station: Station, behind_socket: Launcher) -> Launcher:
    """The verbs in this process and behind the socket; the latter under this machine's Docker only (`conftest.py`)."""
    return station.launcher if request.param == "local" else behind_socket


def test_the_engine_is_fit(launcher: Launcher) -> None:
    info = launcher.engine_info()
    assert info.unfit == ()
    assert info.cpus >= 1


def test_an_image_is_loaded_once_and_verified_each_time(launcher: Launcher, station: Station) -> None:
    first = launcher.load_image(station.config_digest)
    again = launcher.load_image(station.config_digest)
    assert again.image_id == first.image_id != station.config_digest
    assert again.layers_sent == 0
    assert again.layers_hashed >= 3


def test_an_unknown_image_is_refused(launcher: Launcher) -> None:
    with pytest.raises(RefusedError) as caught:
        launcher.load_image("sha256:" + "0" * 64)
    assert caught.value.code == RefusalCode.IMAGE_UNAVAILABLE


def test_a_life(launcher: Launcher, station: Station, tmp_path: Path) -> None:
    spec = station.spec()
    assert launcher.status(spec.run_id).state == "absent"
    session = TrainSandbox(launcher, start_timeout_s=180).start(spec)
    assert launcher.status(spec.run_id).state == "running"
    assert launcher.wait(spec.run_id, 0.1).state == "running"
    assert spec.run_id in {each.run_id for each in launcher.list_runs()}
    answer = session.exchange(
        TrainRequest("train", 1, {"code": "print('hello'); metrics['a'] = 1.5"}),
        ReplyLimits(tmp_path / "r", MIB),
        120,
    )
    assert isinstance(answer, TrainReply)
    assert answer.metrics == {"a": 1.5}
    logged(session, "hello")
    assert "hello" in launcher.logs(spec.run_id, 1000)
    assert launcher.logs(spec.run_id, 0) == ""
    session.stop()
    assert launcher.status(spec.run_id).state == "absent"
    launcher.stop(spec.run_id)
    assert launcher.logs(spec.run_id, 1000) == ""


def test_one_container_per_run(launcher: Launcher, station: Station) -> None:
    spec = station.spec()
    session = TrainSandbox(launcher, start_timeout_s=180).start(spec)
    try:
        with pytest.raises(RefusedError) as caught:
            launcher.start(spec)
        assert caught.value.code == RefusalCode.SANDBOX_ARGUMENT
        assert launcher.status(spec.run_id).state == "running"
    finally:
        session.stop()


def test_what_is_left_of_a_runs_last_container_is_in_nobodys_way(
    launcher: Launcher, station: Station, tmp_path: Path
) -> None:
    """An engine that died keeps a container that it could not be told to remove; the run goes on in another."""
    spec = station.spec()
    sandbox = TrainSandbox(launcher, start_timeout_s=180)
    left = sandbox.start(spec)
    left.exchange(
        TrainRequest("train", 1, {"code": "import os; os._exit(7)"}), ReplyLimits(tmp_path / "r", MIB), 120
    )
    assert launcher.wait(spec.run_id, 60).state == "exited"
    session = sandbox.start(spec)
    try:
        assert launcher.status(spec.run_id).state == "running"
        assert len([each for each in launcher.list_runs() if each.run_id == spec.run_id]) == 1
    finally:
        session.stop()


def test_a_container_that_was_given_up_makes_room_for_its_run(launcher: Launcher, station: Station) -> None:
    """Nobody is left who knows of it: the engine was away when it was to be stopped."""
    spec = station.spec()
    lost = TrainSandbox(launcher, start_timeout_s=180).start(spec)
    later = local_launcher(station.home, station.settings)
    session = TrainSandbox(later, start_timeout_s=180).start(spec)
    try:
        assert [each.state for each in later.list_runs() if each.run_id == spec.run_id] == ["running"]
        with pytest.raises(RefusedError):
            later.start(spec)
    finally:
        session.stop()
        lost.stop()


def test_an_exit_is_seen(launcher: Launcher, station: Station, tmp_path: Path) -> None:
    spec = station.spec()
    session = TrainSandbox(launcher, start_timeout_s=180).start(spec)
    session.exchange(
        TrainRequest("train", 1, {"code": "import os; os._exit(7)"}), ReplyLimits(tmp_path / "r", MIB), 120
    )
    status = launcher.wait(spec.run_id, 60)
    assert (status.state, status.exit_code, status.out_of_memory) == ("exited", 7, False)
    session.stop()


def test_a_spec_beyond_the_ceilings_is_refused(launcher: Launcher, station: Station) -> None:
    with pytest.raises(RefusedError) as caught:
        launcher.start(station.spec(memory_bytes=station.settings.max_memory_bytes + 1))
    assert caught.value.code == RefusalCode.HOSPITAL_RESOURCES


def test_no_more_containers_than_allowed(launcher: Launcher, station: Station) -> None:
    sandbox = TrainSandbox(launcher, start_timeout_s=180)
    allowed = station.settings.max_containers
    sessions = [sandbox.start(station.spec(memory_bytes=128 * MIB)) for _ in range(allowed)]
    try:
        with pytest.raises(RefusedError) as caught:
            sandbox.start(station.spec())
        assert caught.value.code == RefusalCode.RESOURCES_BUSY
    finally:
        for session in sessions:
            session.stop()


def test_orphans_are_removed(launcher: Launcher, station: Station) -> None:
    sandbox = TrainSandbox(launcher, start_timeout_s=180)
    session = sandbox.start(station.spec())
    assert launcher.remove_orphans() == 1
    assert launcher.list_runs() == ()
    session.stop()


def test_the_socket_is_made_for_those_who_may_speak(behind_socket: Launcher, station: Station) -> None:
    path = station.home / "run" / "launcher.sock"
    assert path.stat().st_mode & 0o007 == 0
    with unix.connect(path, timeout_s=5) as sock:  # one that says nothing and leaves disturbs nobody
        assert sock.getpeername()
    assert behind_socket.list_runs() == ()
