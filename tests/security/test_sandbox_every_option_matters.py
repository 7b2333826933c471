"""Removing any single hardening option makes at least one attack succeed.

Each row names one option of a container's request (`engine.hardening.create_body`), a form in which an engine might give it
instead, and the attack that then gets what it must not: really run, in a container whose engine disobeys and whose launcher does
not look. Then the launcher looks: it refuses every one of these containers by what the engine says of it, and those that the kernel
shows also where the engine says that all is as asked. An option whose removal changes nothing, because the engine's own default is
the same, is weakened to the dangerous value.
"""

import contextlib
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from selftest_kit import Attacked, Weaken, disobeyed, without_the_kernel

from policies.blobs import BlobFolder
from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox import unix
from station.sandbox.engine.dialect import Terms
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.session import TrainSandbox, TrainSession
from station.sandbox.spec import MIB, ContainerSpec, ReplyLimits, TrainReply, TrainRequest
from station.selftest.attacks import Attack, attack_named
from station.selftest.image import make_image

pytestmark = pytest.mark.docker


@dataclass(frozen=True)
class Row:
    """One option.

    Attributes:
        option: its name in the request; a part of it after a dot.
        weaken: what the engine makes of the request.
        attack: what then succeeds, of the selftest's table or for this row.
        gets: words of the attempt that succeeds.
        kernel: the kernel's own files show it, whatever the engine says.
    """

    option: str
    weaken: Weaken
    attack: str | Attack
    gets: str
    kernel: bool = False


def host(**changed: Any) -> Weaken:
    return lambda body: body["HostConfig"].update(changed)


def networked(**changed: Any) -> Weaken:
    """Without NetworkDisabled too, which says the same as all of these together."""
    return lambda body: (body.update(NetworkDisabled=False), body["HostConfig"].update(changed))[0]  # type: ignore[func-returns-value]


def top(**changed: Any) -> Weaken:
    return lambda body: body.update(changed)


def tmpfs(old: str, new: str) -> Weaken:
    def weaken(body: dict[str, Any]) -> None:
        places = body["HostConfig"]["Tmpfs"]
        for target in places:
            places[target] = ",".join(
                new if each.startswith(old) else each
                for each in places[target].split(",")
                if new or not each.startswith(old)
            )

    return weaken


def mounted(number: int, **changed: Any) -> Weaken:
    return lambda body: body["HostConfig"]["Mounts"][number].update(changed)


def ulimit(name: str) -> Weaken:
    def weaken(body: dict[str, Any]) -> None:
        for each in body["HostConfig"]["Ulimits"]:
            if each["Name"] == name:
                # An engine may give no more than it has itself.
                most = 8192 if name == "nofile" else -1
                each.update(Soft=most, Hard=most)

    return weaken


def without_new_privileges(body: dict[str, Any]) -> None:
    options = body["HostConfig"]["SecurityOpt"]
    body["HostConfig"]["SecurityOpt"] = [each for each in options if not each.startswith("no-new-privileges")]


def variable(text: str) -> Weaken:
    return lambda body: body["Env"].append(text)


def alone(name: str, **given: Any) -> Attack:
    """A probe in a container of its own, told otherwise than in the table."""
    return Attack(name, "test", name, given=given, alone=True)


SMALL = {"memory_bytes": 256 * MIB, "scratch_bytes": 16 * MIB}
COMMAND = ["/opt/train/bin/python", "-X", "utf8", "-m", "pht_runtime"]
SECOND = "open('/dev/shm/second-program', 'w')"
HEALTH = {
    "Test": ["CMD", "/opt/train/bin/python", "-c", SECOND],
    "Interval": 1_000_000_000,
    "Timeout": 10_000_000_000,
}

# Fewer than the memory limit would end: without the ceiling on their number nothing else is in the way of these.
MORE_FILES = replace(attack_named("inode-bomb"), given={"most": 70_000}, may_be_killed=False)

ROWS = [
    # What runs, as whom.
    Row("User", lambda body: body.update(User=body["User"].split(":")[0] + ":0"), "users", "read a file of root's group", kernel=True),
    Row("Entrypoint", top(Entrypoint=COMMAND), "start", "choose how it is started"),
    Row("Cmd", top(Cmd=["of-the-image"]), "start", "choose how it is started"),
    Row("Env", variable("HOSPITAL=umc-a"), "environment", "HOSPITAL"),
    Row("Hostname", top(Hostname="pacs-umc-a"), "names", "pacs-umc-a"),
    Row("Domainname", top(Domainname="umc-a.example"), "names", "umc-a.example"),
    Row("Tty", top(Tty=True), "start", "be given a terminal"),
    Row("OpenStdin", top(OpenStdin=True), "start", "be given an input"),
    Row("Healthcheck", top(Healthcheck=HEALTH), alone("second-program", wait_s=40), "the engine ran it"),
    Row("Volumes", top(Volumes={"/opt/bait/open": {}}), "write-outside", "/opt/bait/open", kernel=True),
    # Nothing to talk to.
    Row("NetworkMode", networked(NetworkMode="host"), "network-v4", "connected", kernel=True),
    Row("ExtraHosts", networked(ExtraHosts=["pacs.umc-a.example:10.0.0.9"]), "names", "pacs.umc-a.example"),
    Row("Dns", networked(Dns=["10.0.0.53"]), "names", "10.0.0.53"),
    Row("DnsOptions", networked(DnsOptions=["timeout:1"]), "names", "timeout:1"),
    Row("DnsSearch", networked(DnsSearch=["umc-a.example"]), "names", "umc-a.example"),
    # Nothing to gain.
    Row("Privileged", host(Privileged=True), "devices", "look for devices", kernel=True),
    Row("CapAdd", host(CapAdd=["SYS_ADMIN"]), "capabilities", "CapBnd", kernel=True),
    Row("CapDrop", host(CapDrop=[]), "capabilities", "CapBnd", kernel=True),
    Row("GroupAdd", host(GroupAdd=["0"]), "users", "read a file of root's group", kernel=True),
    Row("SecurityOpt.no-new-privileges", without_new_privileges, "set-user-id", "it ran as root", kernel=True),
    Row(
        "SecurityOpt.seccomp", host(SecurityOpt=["no-new-privileges:true", "seccomp=unconfined"]), "keyring", "add a key",
        kernel=True,
    ),
    Row(
        "Devices",
        host(Devices=[{"PathOnHost": "/dev/net/tun", "PathInContainer": "/dev/net/tun", "CgroupPermissions": "rwm"}]),
        "devices", "look for devices",
    ),
    # Namespaces of its own.
    Row("IpcMode", host(IpcMode="host"), "shared-memory", "a shared memory segment of this host", kernel=True),
    Row("PidMode", host(PidMode="host"), "proc-processes", "by its secret", kernel=True),
    Row(
        "UTSMode", lambda body: (body.update(Hostname=""), body["HostConfig"].update(UTSMode="host"))[0], "names",  # type: ignore[func-returns-value]
        "read the host's name", kernel=True,
    ),
    Row("CgroupnsMode", host(CgroupnsMode="host"), "control-groups", "where in this host's tree"),
    # Nowhere to write.
    Row("Binds", host(Binds=["/etc:/srv/other:ro"]), "seen-mounts", "/srv/other", kernel=True),
    Row("ReadonlyRootfs", host(ReadonlyRootfs=False), "write-outside", "/opt/bait/open", kernel=True),
    Row("Mounts.ReadOnly", mounted(0, ReadOnly=False), "cohort-written", "write into a file of the cohort", kernel=True),
    Row("Tmpfs.noexec", tmpfs("noexec", "exec"), "run-written", "run a program in /tmp", kernel=True),
    Row("Tmpfs.nr_inodes", tmpfs("nr_inodes", "nr_inodes=0"), MORE_FILES, "were made"),
    Row("Tmpfs.size", tmpfs("size", ""), "disk-bomb", "fill /train/scratch", kernel=True),
    Row("ShmSize", host(ShmSize=128 * MIB), "disk-bomb", "fill /dev/shm", kernel=True),
    # Ceilings.
    Row("Memory", host(Memory=0, MemorySwap=0), "memory-bomb", "MiB of 128 allowed", kernel=True),
    Row("MemorySwap", host(MemorySwap=-1), "ceilings", "memory.", kernel=True),
    Row("OomScoreAdj", host(OomScoreAdj=0), "proc-writes", "be killed later"),
    Row("NanoCpus", host(NanoCpus=0), "ceilings", "processor time", kernel=True),
    Row("PidsLimit", host(PidsLimit=0), "fork-bomb", "ran of 40 allowed", kernel=True),
    Row("Ulimits.nofile", ulimit("nofile"), "open-files", "open files without end", kernel=True),
    Row("Ulimits.core", ulimit("core"), "core-dump", "it was dumped", kernel=True),
    Row("Ulimits.fsize", ulimit("fsize"), "file-size", "there is no limit", kernel=True),
    Row("LogConfig", host(LogConfig={"Type": "json-file", "Config": {}}), "log-bomb", "MiB are kept"),
    Row("Init", host(Init=False), alone("zombies", wait_s=2), "stayed"),
]  # fmt: skip

if Path("/sys/fs/cgroup/memory").is_dir():
    ROWS += [
        Row(
            "DeviceCgroupRules", host(DeviceCgroupRules=["a *:* rwm"]), "devices", "every device", kernel=True
        ),
        Row("OomKillDisable", host(OomKillDisable=True), "control-groups", "oom_kill_disable 1"),
    ]

# Tried below by hand: what it takes is more than a request, or what succeeds is not the train's to see.
BY_HAND = {
    "Image",
    "Labels",
    "Mounts.Propagation",
    "Mounts.NonRecursive",
    "VolumesFrom",
    "RestartPolicy",
    "AutoRemove",
}

# Nothing of these alone holds a train back here; each is kept for its reason.
BRACES = {
    "WorkingDir": "where it starts is scratch, and every other place is closed by its own option",
    "NetworkDisabled": "says the same as NetworkMode and the four options on names together, which are tried without it",
    "AttachStdin": "about a client that attaches, and nobody does",
    "AttachStdout": "as AttachStdin",
    "AttachStderr": "as AttachStdin",
    "StopSignal": "a container is killed, never asked to stop",
    "ExposedPorts": "without a network no port is anywhere",
    "PortBindings": "as ExposedPorts",
    "PublishAllPorts": "as ExposedPorts",
    "Links": "as ExposedPorts; an engine without networks refuses one",
    "DeviceRequests": "an engine without the driver refuses any; what a lease gives is tried where there is a GPU",
    "Sysctls": "an engine takes those of the container's own namespaces only, and refuses the host's",
    "Runtime": "the hospital's choice; every runtime has the launcher's contract to pass",
    "UsernsMode": "an engine that remaps users is refused before",
    "CgroupParent": "where its control group lies; what the group holds is tried by every limit above",
    "Tmpfs.nosuid": "only the train writes there, as itself, and no_new_privs holds",
    "Tmpfs.nodev": "without CAP_MKNOD nobody makes a device there, and its control group allows none",
    "Tmpfs.owner": "uid, gid and mode: nobody else is in the container",
    "Mounts.control": "its folder is 0711 and the station's; the read-only mount stands before that",
    **(
        {}
        if Path("/sys/fs/cgroup/memory").is_dir()
        else {
            "DeviceCgroupRules": "cgroup v2 does not show them; without CAP_MKNOD there is no device to open",
            "OomKillDisable": "cgroup v2 has no such switch",
        }
    ),
    "Env.names": "what libraries ask for (HOME, USER, LOGNAME, threads, PYTHON*, FLWR_*, NVIDIA_VISIBLE_DEVICES) gives nothing",
}


def container(attacked: Attacked, **changed: Any) -> ContainerSpec:
    run_id = f"selftest-{secrets.token_hex(6)}"
    cohort, control = (attacked.home / "compute" / each / run_id for each in ("cohorts", "control"))
    for each in (cohort, cohort / "below", control):
        each.mkdir()
        each.chmod(0o755)
    return ContainerSpec.model_validate({
        "run_id": run_id, "image_config_digest": attacked.place.image, "cohort_dir": str(cohort), "control_dir": str(control),
        "memory_bytes": 256 * MIB, "cpus": 0.5, "pids": 64, "scratch_bytes": 16 * MIB, "wall_clock_s": 300,
        "series": "selftest", **changed,
    })  # fmt: skip


def refused(attacked: Attacked, weaken: Weaken, *, blind: bool) -> None:
    """A container of a disobedient engine must not be started, and nothing of it be left."""
    asked = container(attacked)
    weak = disobeyed(attacked.home, attacked.place.settings, weaken, blind=blind)
    # The train connects and waits: it is there when the kernel is asked.
    listener = unix.listen(Path(asked.control_dir) / "train.sock", mode=0o666, backlog=1)
    with listener, pytest.raises(RefusedError) as caught:
        weak.start(asked)
    assert caught.value.code == RefusalCode.ENGINE_UNFIT
    assert weak.status(asked.run_id).state == "absent"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.option)
def test_an_attack_succeeds_without_it(attacked: Attacked, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    weak = disobeyed(attacked.home, attacked.place.settings, row.weaken, blind=True)
    with without_the_kernel(monkeypatch):
        line = attacked.run(row.attack, weak)
    assert line.verdict == "NOT STOPPED", line
    got = [f"{each.tried}: {each.what}" for each in line.attempts if each.how == "got"]
    assert any(row.gets in each for each in got), got


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.option)
def test_the_launcher_refuses_a_container_without_it(attacked: Attacked, row: Row) -> None:
    refused(attacked, row.weaken, blind=False)


@pytest.mark.parametrize("row", [row for row in ROWS if row.kernel], ids=lambda row: row.option)
def test_the_kernel_shows_that_it_is_missing(attacked: Attacked, row: Row) -> None:
    """Also where the engine says that all is as asked."""
    refused(attacked, row.weaken, blind=True)


# By hand


@contextlib.contextmanager
def unseen(
    attacked: Attacked,
    monkeypatch: pytest.MonkeyPatch,
    weaken: Weaken,
    prepare: Callable[[Path], None] = lambda _cohort: None,
) -> Iterator[tuple[LauncherCore, TrainSession, Path]]:
    """A train in a weakened container, whose launcher does not look."""
    weak = disobeyed(attacked.home, attacked.place.settings, weaken, blind=True)
    asked = container(attacked)
    prepare(Path(asked.cohort_dir))
    with without_the_kernel(monkeypatch):
        session = TrainSandbox(weak, start_timeout_s=180).start(asked)
        try:
            yield weak, session, Path(asked.cohort_dir)
        finally:
            session.stop()


def probe(attacked: Attacked, session: TrainSession, name: str) -> list[str]:
    """What a probe got."""
    request = TrainRequest("analyse", 1, {"probe": name, "given": {}, "timeout_s": 60.0})
    answer = session.exchange(request, ReplyLimits(attacked.home / "reply", MIB), 90)
    assert isinstance(answer, TrainReply), answer
    attempts: Any = answer.rows["attempts"]
    return [f"{each['tried']}: {each['what']}" for each in attempts if each["how"] == "got"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_image(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another image than the verified one runs."""
    other = make_image(BlobFolder(attacked.home / "compute" / "layers"), "another image")
    loaded = attacked.place.launcher.load_image(other.config_digest)
    weaken = top(Image=loaded.image_id)
    try:
        with without_the_kernel(monkeypatch):
            line = attacked.run(
                "start", disobeyed(attacked.home, attacked.place.settings, weaken, blind=True)
            )
        assert line.verdict == "NOT STOPPED"
        assert "be another image than the one verified: another image" in line.stopped_by
        refused(attacked, weaken, blind=False)
    finally:
        attacked.place.launcher.remove_image(other.config_digest)


def test_labels(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that the launcher does not know for its own outlives it."""
    weaken = top(Labels={})
    with unseen(attacked, monkeypatch, weaken) as (weak, session, _cohort):
        assert session.run_id not in {each.run_id for each in weak.list_runs()}
        weak.remove_orphans()
        assert weak.status(session.run_id).state == "running"
    refused(attacked, weaken, blind=False)


def test_restart_policy(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A train that has ended is there again, without its launcher."""
    weaken = host(RestartPolicy={"Name": "always", "MaximumRetryCount": 0})
    with unseen(attacked, monkeypatch, weaken) as (weak, session, _cohort):
        session._connection.close()
        name = weak._name(session.run_id)
        until(lambda: (weak._engine.container(name) or {}).get("RestartCount", 0) > 0)
    refused(attacked, weaken, blind=False)


def test_auto_remove(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a train ended is gone with it."""
    weaken = host(AutoRemove=True)
    with unseen(attacked, monkeypatch, weaken) as (weak, session, _cohort):
        session._connection.close()
        until(lambda: weak.status(session.run_id).state == "absent")
    refused(attacked, weaken, blind=False)


def test_volumes_from(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container's folders are the train's."""
    image = attacked.place.launcher.load_image(attacked.place.image).image_id
    donor = f"pht-donor-{secrets.token_hex(4)}"
    made = ["docker", "create", "--name", donor, "--network", "none", "-v", "/etc:/srv/other:ro", image, "/x"]
    subprocess.run(made, check=True, capture_output=True)
    try:
        weaken = host(VolumesFrom=[donor])
        with without_the_kernel(monkeypatch):
            line = attacked.run(
                "seen-mounts", disobeyed(attacked.home, attacked.place.settings, weaken, blind=True)
            )
        assert "/srv/other" in line.stopped_by
        assert line.verdict == "NOT STOPPED"
        refused(attacked, weaken, blind=False)
    finally:
        subprocess.run(["docker", "rm", "-f", donor], check=True, capture_output=True)


@contextlib.contextmanager
def mounting(attacked: Attacked) -> Iterator[Callable[[Path], None]]:
    """Mounts of this host below a cohort, which is a mount that others may follow."""
    mounted: list[Path] = []

    def mount(at: Path, *options: str) -> None:
        subprocess.run(["mount", *options, str(at)], check=True, capture_output=True)
        mounted.append(at)

    def prepare(cohort: Path) -> None:
        if cohort.name != "below":
            mount(cohort, "--bind", str(cohort))
            subprocess.run(["mount", "--make-shared", str(cohort)], check=True, capture_output=True)
            return
        mount(cohort, "-t", "tmpfs", "none")
        (cohort / "of-the-hospital").write_text("x")

    try:
        yield prepare
    finally:
        for at in reversed(mounted):
            subprocess.run(["umount", "-l", str(at)], check=True, capture_output=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts are made as root")


def of_cohort(**changed: Any) -> Weaken:
    return lambda body: body["HostConfig"]["Mounts"][0]["BindOptions"].update(changed)


@needs_root
def test_non_recursive(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this host has mounted below the cohort's folder is the train's too."""
    weaken = of_cohort(NonRecursive=False)
    with mounting(attacked) as mount:

        def both(cohort: Path) -> None:
            mount(cohort)
            mount(cohort / "below")

        with unseen(attacked, monkeypatch, weaken, both) as (_weak, session, _cohort):
            assert probe(attacked, session, "mounted-below") == [
                "see what is mounted below its cohort: of-the-hospital"
            ]
        with unseen(attacked, monkeypatch, top(Hostname="other"), both) as (_weak, session, _cohort):
            assert probe(attacked, session, "mounted-below") == []
    refused(attacked, weaken, blind=False)


@needs_root
def test_propagation(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this host mounts later below the cohort's folder comes to the train."""
    weaken = of_cohort(Propagation="rslave")
    with mounting(attacked) as mount:
        with unseen(attacked, monkeypatch, weaken, mount) as (_weak, session, cohort):
            mount(cohort / "below")
            assert probe(attacked, session, "mounted-below") == [
                "see what is mounted below its cohort: of-the-hospital"
            ]
        with unseen(attacked, monkeypatch, top(Hostname="other"), mount) as (_weak, session, cohort):
            mount(cohort / "below")
            assert probe(attacked, session, "mounted-below") == []
    refused(attacked, weaken, blind=False)


def test_every_option_is_tried_or_has_its_reason() -> None:
    body: dict[str, Any] = DockerDialect().create_body(
        ContainerSpec(
            run_id="ab", image_config_digest="sha256:" + "0" * 64, cohort_dir="/c", control_dir="/d",
            memory_bytes=64 * MIB, cpus=1.0, wall_clock_s=1,
        ),
        Terms("sha256:" + "0" * 64, 1_900_000_000, {"a": "b"}),
    )  # fmt: skip
    options = {*body, *body["HostConfig"]} - {"HostConfig"}
    named = {row.option for row in ROWS} | BY_HAND | set(BRACES)
    tops = {each.split(".")[0] for each in named}
    assert options == tops
    # And each part of those that have parts.
    flags = {each.split("=")[0] for each in body["HostConfig"]["Tmpfs"]["/tmp"].split(",")} - {"rw"}
    of_tmpfs = {each.removeprefix("Tmpfs.") for each in named if each.startswith("Tmpfs.")}
    assert flags == of_tmpfs - {"owner"} | {"uid", "gid", "mode"}
    assert {each["Name"] for each in body["HostConfig"]["Ulimits"]} == {
        each.removeprefix("Ulimits.") for each in named if each.startswith("Ulimits.")
    }
    (of_mount,) = {tuple(sorted({*each, *each["BindOptions"]})) for each in body["HostConfig"]["Mounts"]}
    assert set(of_mount) - {"BindOptions", "Source", "Target", "Type"} == {
        "ReadOnly",
        "Propagation",
        "NonRecursive",
    }
    assert {each.replace("=", ":").split(":")[0] for each in body["HostConfig"]["SecurityOpt"]} == {
        each.removeprefix("SecurityOpt.") for each in named if each.startswith("SecurityOpt.")
    }
