"""Further container engines for the tests: a newer Docker with containerd's image store, gVisor under it, and Podman.

The Docker of this machine is used as it is. The others are started when a test first asks for one, from the Debian tree that
`make engines` made, in mount and network namespaces of their own, with data, sockets and control groups of their own, without a bridge
and without firewall rules. They end with the tests, also when those are killed (`engine_keeper.py`).
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from station.sandbox import unix
from station.sandbox.spec import LauncherSettings, Runtime

GIVEN: Final = os.environ.get("PHT_ENGINE_SOCKET")
"""Where a machine's own engine listens that is to be tested instead of those below."""

ENGINES: Final = ("given",) if GIVEN else ("docker", "docker-containerd", "docker-gvisor", "podman")
ROOM: Final = Path(os.environ.get("PHT_ENGINES", "/var/lib/pht-engines"))
_KEEPER: Final = Path(__file__).with_name("engine_keeper.py")
_START_S: Final = 120.0
_NOBODY: Final = 65534

# A root of its own by pivot_root: under a mere chroot runc and runsc do not start. The first argument is the tree, the second the
# engine's data, the third the top folder that the tests' paths lie under, the rest the engine's command.
_IN_A_TREE: Final = """
set -euo pipefail
tree=$1 data=$2 shared=$3; shift 3
mount --bind "$tree" "$tree"
for each in proc sys dev; do mount --rbind "/$each" "$tree/$each"; done
mount -t tmpfs engine "$tree/run"
mount -t tmpfs engine "$tree/srv"
mkdir "$tree/srv/data"
mount --bind "$data" "$tree/srv/data"
mkdir -p "$tree$shared"
mount --rbind "$shared" "$tree$shared"
cd "$tree"
pivot_root . media
umount -l /media
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine that tests may use.

    Attributes:
        name: what tests call it.
        socket: where it listens.
        runtime: the OCI runtime that trains run under there; ``None`` for its usual one.
    """

    name: str
    socket: Path
    runtime: Runtime | None = None

    def settings(self, **changed: object) -> LauncherSettings:
        """Return a launcher's settings for it."""
        values = {
            "station": "test-station",
            "compute_uid": os.getuid(),
            "max_containers": 3,
            "engine_socket": self.socket,
            "runtime": self.runtime,
        }
        return LauncherSettings.model_validate(values | changed)


HOST_DOCKER: Final = Engine("docker", Path(GIVEN or "/var/run/docker.sock"))


class EngineRoom:
    """Every engine by its name; each is started when it is first asked for, and once."""

    def __init__(self, place: Path, leaving: contextlib.ExitStack) -> None:
        """Keep sockets and logs of engines under a folder; what is started is ended by `leaving`."""
        self._place = place
        self._leaving = leaving
        self._started: dict[str, Path] = {}

    def engine(self, name: str) -> Engine:
        """Return an engine that answers; skips with the reason where it cannot be had."""
        match name:
            case "given":
                return Engine(name, Path(GIVEN or ""))
            case "docker":
                return HOST_DOCKER
            case "docker-containerd":
                return Engine(name, self._socket("newer-docker", newer_docker))
            case "docker-gvisor":
                return Engine(name, self._socket("newer-docker", newer_docker), "runsc")
            case "podman":
                return Engine(name, self._socket("podman", podman))
        raise KeyError(name)

    def _socket(self, which: str, start: Callable[[Path], contextlib.AbstractContextManager[Path]]) -> Path:
        if which not in self._started:
            folder = self._place / which
            folder.mkdir()
            self._started[which] = self._leaving.enter_context(start(folder))
        return self._started[which]


@contextlib.contextmanager
def engine_room(place: Path) -> Iterator[EngineRoom]:
    """Yield the engines; those that were started end with it."""
    with contextlib.ExitStack() as leaving:
        yield EngineRoom(place, leaving)


def require_engines(*programs: Path) -> None:
    """Skip, with what to do, where further engines cannot be started."""
    if os.geteuid() != 0:
        pytest.skip("further container engines are started as root only")
    if missing := [str(each) for each in programs if not each.exists()]:
        pytest.skip(f"{', '.join(missing)} is missing: run `make engines`")


@contextlib.contextmanager
def newer_docker(folder: Path) -> Iterator[Path]:
    """Yield the socket of a newer Docker with containerd's image store and the further runtime runsc."""
    tree = Path(os.path.realpath(ROOM / "newer-docker"))
    require_engines(tree / "usr/sbin/dockerd", tree / "usr/bin/runsc")
    name = f"pht-engine-{secrets.token_hex(6)}"
    data = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=ROOM))
    listening = folder / "docker.sock"
    runsc = {"path": "/usr/bin/runsc", "runtimeArgs": ["--host-uds=open", "--network=none"]}
    config = {
        "features": {"containerd-snapshotter": True},
        "runtimes": {"runsc": runsc},
        "bridge": "none",
        "iptables": False,
        "ip6tables": False,
        "cgroup-parent": f"/{name}",
        "data-root": "/srv/data",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "hosts": [f"unix://{listening}"],
    }
    (folder / "daemon.json").write_text(json.dumps(config))
    shared = Path(*folder.parts[:2])
    if shared.name in {"run", "srv", "media", "proc", "sys", "dev", "usr", "etc"}:
        pytest.skip(
            f"the tests' folder lies under {shared}, which the engine has of its own: set TMPDIR to another"
        )
    # Docker asks whoever has this name for GPUs, so here it takes requests for them as at a hospital; nothing is brought in.
    hook = folder / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\ncat >/dev/null\n")
    hook.chmod(0o755)
    command = ["/usr/bin/env", f"PATH={os.defpath}:/usr/sbin:/sbin:{folder}"]
    command += ["/usr/sbin/dockerd", "--config-file", str(folder / "daemon.json")]
    with kept_engine(in_a_tree(tree, data, shared, command), folder, listening, [data], name):
        yield listening


_OWN_LOCKS: Final = 'set -e; mount -t tmpfs -o mode=1777 engine /dev/shm; cd /; exec "$@"'
# Podman keeps its locks in shared memory and its mounts in the namespace that it runs in: here both end with it. It reads no
# settings of this machine's. The runtime is named, since crun refuses control groups that are partly of version 1.
_PODMAN: Final = """
set -euo pipefail
mount -t tmpfs engine /dev/shm
# conmon leaves a file where it is started when a container hits its memory limit.
cd "$2"
export CONTAINERS_CONF=$1/containers.conf CONTAINERS_STORAGE_CONF=$1/storage.conf
exec podman --tmpdir "$2/tmp" --cgroup-manager cgroupfs --runtime runc --log-level warn \\
  system service --time=0 "unix://$1/podman.sock"
"""


@contextlib.contextmanager
def podman(folder: Path) -> Iterator[Path]:
    """Yield the socket of a Podman that is root, with data of its own."""
    require_engines(*(Path("/usr", each) for each in ("bin/podman", "bin/conmon", "bin/catatonit")))
    if shutil.which("runc") is None:
        pytest.skip("runc is missing: install it (Docker needs it too)")
    ROOM.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="podman-", dir=ROOM))
    (folder / "containers.conf").write_text("")
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{data}/root"\nrunroot = "{data}/run"\n'
    )
    listening = folder / "podman.sock"
    command = ["unshare", "--mount", "--propagation", "private"]
    command += ["bash", "-c", _PODMAN, "podman", str(folder), str(data)]
    with kept_engine(command, folder, listening, [data], "libpod_parent"):
        yield listening


@contextlib.contextmanager
def rootless_podman() -> Iterator[Path]:
    """Yield the socket of a Podman that an ordinary user runs (nobody, who has no further users to give to containers)."""
    require_engines(*(Path("/usr", each) for each in ("bin/podman", "bin/conmon", "bin/setpriv")))
    ROOM.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="podman-rootless-", dir=ROOM))
    (folder / "run").mkdir()
    for each in (folder, folder / "run"):
        os.chown(each, _NOBODY, _NOBODY)
    listening = folder / "podman.sock"
    user = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "env", "-i"]
    places = [f"HOME={folder}", f"XDG_RUNTIME_DIR={folder}/run", f"PATH={os.defpath}:/usr/sbin"]
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "bash",
        "-c",
        _OWN_LOCKS,
        "podman",
        *user,
        *places,
    ]
    command += [
        "podman",
        "--cgroup-manager",
        "cgroupfs",
        "system",
        "service",
        "--time=0",
        f"unix://{listening}",
    ]
    with kept_engine(command, folder, listening, [folder], "libpod_parent"):
        yield listening


def in_a_tree(tree: Path, data: Path, shared: Path, command: list[str]) -> list[str]:
    """Return a command that runs another one in a mount namespace whose root is a tree, and in a network of its own.

    A Docker that is told to have no bridge takes away the one it finds, which would be that of this machine's.

    Args:
        tree: the root.
        data: a folder outside it, at ``/srv/data`` inside.
        shared: a folder at the top of this machine's root that has the same name inside.
        command: what is to run.
    """
    script = ["bash", "-c", _IN_A_TREE, "engine", str(tree), str(data), str(shared)]
    return ["unshare", "--mount", "--net", "--propagation", "private", *script, *command]


@contextlib.contextmanager
def kept_engine(
    command: list[str], folder: Path, listening: Path, remove: list[Path], cgroup: str
) -> Iterator[None]:
    """Run an engine until the block is left, or this process ends in whatever way.

    Args:
        command: the engine, in the foreground.
        folder: for its log, ``engine.log``.
        listening: its socket; the block begins when it answers.
        remove: folders that go at the end.
        cgroup: the name of the control groups that its containers lie in.
    """
    log = folder / "engine.log"
    asked = {
        "command": command,
        "log": str(log),
        "folders": [str(each) for each in remove],
        "cgroup": cgroup,
    }
    keeper = subprocess.Popen(
        [sys.executable, str(_KEEPER), json.dumps(asked)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert keeper.stdin is not None
    try:
        _wait_for(listening, keeper, log)
        yield
    finally:
        keeper.stdin.close()
        keeper.wait(_START_S)


def _wait_for(listening: Path, keeper: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    pause = threading.Event()
    while True:
        try:
            unix.connect(listening, timeout_s=5).close()
        except OSError:
            said = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            assert keeper.poll() is None, f"the engine ended: {said}"
            assert time.monotonic() < deadline, f"the engine does not answer: {said}"
            pause.wait(0.05)
        else:
            return
