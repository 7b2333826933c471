"""What the kernel showed of real containers, and what must not pass: each restriction weakened in its text is named."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.sandbox.engine import mounts
from station.sandbox.engine.dialect import Dialect, Terms
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.engine.kernel import (
    GVISOR_S,
    Asked,
    KernelView,
    ProcessView,
    asked_of,
    on_host,
    patience_s,
    problems,
    user_of,
)
from station.sandbox.engine.mounts import HIDDEN, UNCHANGEABLE, Memory, Place, parse_mounts
from station.sandbox.engine.podman import PodmanDialect
from station.sandbox.spec import MIB, ContainerSpec

VIEWS = Path(__file__).with_name("kernel_views")
UID = 1_900_000_007
CONTAINER = "c" * 64
DISK = "254:0"
PLACES = {
    "/train/data": Place(DISK, "/srv/compute/cohorts/run-1"),
    "/train/control": Place(DISK, "/srv/compute/control/run-1"),
}
PODMAN_FILES = {
    "/etc/hosts": Place(DISK, "/opt/pht/station/sandbox/engine/podman_hosts.txt"),
    "/etc/resolv.conf": Place(DISK, "/opt/pht/station/sandbox/engine/podman_resolv.txt"),
}
# What there was on the host where the texts are from.
ON_THIS_HOST = tuple(
    path
    for path in (*HIDDEN, *UNCHANGEABLE)
    if path not in {"/proc/kcore", "/proc/sched_debug", "/proc/scsi", "/proc/sysrq-trigger"}
)
ENGINES = ("docker", "podman", "docker-gvisor")


def asked(engine: str) -> Asked:
    dialect: Dialect = PodmanDialect() if engine == "podman" else DockerDialect()
    runtime = "runsc" if engine == "docker-gvisor" else None
    spec = ContainerSpec(
        run_id="run-1",
        image_config_digest="sha256:" + "a" * 64,
        cohort_dir="/srv/compute/cohorts/run-1",
        control_dir="/srv/compute/control/run-1",
        memory_bytes=512 * MIB,
        cpus=1.5,
        pids=64,
        scratch_bytes=32 * MIB,
        wall_clock_s=60,
    )
    body = dialect.create_body(spec, Terms("sha256:" + "b" * 64, UID, {}, runtime))
    places = PLACES | PODMAN_FILES if engine == "podman" else PLACES
    return asked_of(body, CONTAINER, places, virtual=runtime == "runsc")


def view(engine: str) -> KernelView:
    folder = VIEWS / engine

    def text(name: str) -> str:
        return (folder / name).read_text()

    others = (
        (ProcessView(text("gofer.status"), text("gofer.mountinfo")),) if engine == "docker-gvisor" else ()
    )
    return KernelView(
        first=ProcessView(text("status"), text("mountinfo")),
        limits=text("limits"),
        net_dev=text("net_dev"),
        uid_map=text("uid_map"),
        gid_map=text("uid_map"),
        group={name: tuple(values) for name, values in json.loads(text("group.json")).items()},
        others=others,
        on_this_host=ON_THIS_HOST,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_as_asked_has_no_problem(engine: str) -> None:
    assert problems(view(engine), asked(engine)) == ()


def test_the_user_is_the_kernels_word() -> None:
    assert user_of(view("docker")) == UID
    assert user_of(changed("docker", "status", f"Uid:\t{UID}", "Uid:\t0")) is None


def changed(engine: str, where: str, old: str, new: str) -> KernelView:
    """The real view with one text changed; the change must find something to change."""
    real = view(engine)
    if where in {"status", "mountinfo"}:
        text = getattr(real.first, where)
        assert old in text, text
        return dataclasses.replace(
            real, first=dataclasses.replace(real.first, **{where: text.replace(old, new, 1)})
        )
    text = getattr(real, where)
    assert old in text, text
    return dataclasses.replace(real, **{where: text.replace(old, new, 1)})


def called(real: KernelView, name: str) -> KernelView:
    """The view with another name of the first process."""
    status = real.first.status.replace(real.first.status.splitlines()[0], f"Name:\t{name}", 1)
    return dataclasses.replace(real, first=dataclasses.replace(real.first, status=status))


STATUS = [
    (f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}", "Uid:\t0\t0\t0\t0", "another user"),
    (f"Uid:\t{UID}\t{UID}\t{UID}", f"Uid:\t{UID}\t{UID}\t0", "another user"),
    (f"Gid:\t{UID}\t", "Gid:\t0\t", "another group"),
    (f"Groups:\t{UID} ", f"Groups:\t{UID} 27 ", "further groups"),
    ("Groups:", "Gruppen:", "further groups"),
    ("CapInh:\t0000000000000000", "CapInh:\t0000000000000001", "capabilities (CapInh)"),
    ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000200000", "capabilities (CapPrm)"),
    ("CapEff:\t0000000000000000", "CapEff:\t00000000a80425fb", "capabilities (CapEff)"),
    ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400", "capabilities (CapBnd)"),
    ("CapAmb:\t0000000000000000", "CapAmb:\tffffffffffffffff", "capabilities (CapAmb)"),
    ("CapBnd:\t0000000000000000\n", "", "capabilities (CapBnd)"),
    ("CapEff:\t0000000000000000", "CapEff:\tzero", "capabilities (CapEff)"),
    ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "new privileges"),
    ("NoNewPrivs:\t1\n", "", "new privileges"),
    ("NoNewPrivs:\t1\n", "NoNewPrivs:\t1\nNoNewPrivs:\t1\n", "new privileges"),
    ("Seccomp:\t2", "Seccomp:\t0", "no seccomp filter"),
    ("Seccomp:\t2", "Seccomp:\t1", "no seccomp filter"),
]


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize(("old", "new", "problem"), STATUS)
def test_more_privileges_are_named(engine: str, old: str, new: str, problem: str) -> None:
    seen = changed(engine, "status", old, new)
    found = problems(seen, asked(engine))
    assert found == (problem,)
    assert patience_s(found, seen, asked(engine)) == 0
    # Before the container's program runs, the runtime may still have this before it.
    for name in ("runc:[2:INIT]", "crun", "6"):
        assert patience_s(found, called(seen, name), asked(engine)) > 0
    for name in ("runc", "crun x", "python3", "runsc", "", "runc:[2:INIT]\nName:\tcrun"):
        assert patience_s(found, called(seen, name), asked(engine)) == 0


def test_a_process_of_the_hosts_namespace_is_named() -> None:
    real = view("docker")
    (line,) = [line for line in real.first.status.splitlines() if line.startswith("NSpid:")]
    for other in (line.rpartition("\t")[0], line.rpartition("\t")[0] + "\t7", "NSpid:\t1"):
        seen = called(changed("docker", "status", line, other), "crun")
        found = problems(seen, asked("docker"))
        assert found == ("the host's pid namespace",)
        assert patience_s(found, seen, asked("docker")) == 0
    assert problems(dataclasses.replace(real, shared=("ipc",)), asked("docker")) == (
        "the host's ipc namespace",
    )


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("Max open files            4096                 4096", "Max open files            4096                 8192", "open files"),
        ("Max open files            4096                 4096", "Max open files            unlimited            4096", "open files"),
        ("Max core file size        0                    0", "Max core file size        0                    unlimited", "core file size"),
        ("Max file size             33554432             33554432", "Max file size             33554432             99999999", "file size"),
        ("Max file size", "Max pile size", "file size"),
    ],
)  # fmt: skip
def test_a_higher_limit_is_named(old: str, new: str, name: str) -> None:
    assert problems(changed("docker", "limits", old, new), asked("docker")) == (f"no limit on {name}",)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("file", "value", "problem"),
    [
        ("memory.limit_in_bytes", str(513 * MIB), "no memory limit"),
        ("memory.limit_in_bytes", "9223372036854771712", "no memory limit"),
        ("memory.limit_in_bytes", None, "no memory limit"),
        ("memory.limit_in_bytes", "max", "no memory limit"),
        ("memory.memsw.limit_in_bytes", str(1024 * MIB), "swap"),
        ("memory.memsw.limit_in_bytes", None, "swap"),
        ("pids.max", "max", "no pids limit"),
        ("pids.max", "65", "no pids limit"),
        ("pids.max", None, "no pids limit"),
        ("cpu.cfs_quota_us", "-1", "no cpu quota"),
        ("cpu.cfs_quota_us", "160000", "no cpu quota"),
        ("cpu.cfs_period_us", "0", "no cpu quota"),
        ("cpu.cfs_period_us", None, "no cpu quota"),
    ],
)
def test_a_weaker_group_is_named(engine: str, file: str, value: str | None, problem: str) -> None:
    real = view(engine)
    group = {name: values for name, values in real.group.items() if name != file}
    if value is not None:
        group[file] = (value + "\n",)
    assert problems(dataclasses.replace(real, group=group), asked(engine)) == (problem,)


VERSION_2 = {
    "memory.max": ("536870912\n", "max\n"),
    "memory.swap.max": ("0\n", "max\n"),
    "pids.max": ("64\n", "max\n"),
    "cpu.max": ("150000 100000\n", "max 100000\n"),
}


@pytest.mark.parametrize(
    ("file", "value", "problem"),
    [
        ("memory.max", "max", "no memory limit"),
        ("memory.swap.max", "4096", "swap"),
        ("memory.swap.max", "max", "swap"),
        ("pids.max", "max", "no pids limit"),
        ("cpu.max", "max 100000", "no cpu quota"),
    ],
)
def test_control_groups_of_version_2(file: str, value: str, problem: str) -> None:
    real = view("docker")
    assert problems(dataclasses.replace(real, group=VERSION_2), asked("docker")) == ()
    for values in ((f"{value}\n",), ()):
        group = VERSION_2 | {file: values}
        assert problems(dataclasses.replace(real, group=group), asked("docker")) == (problem,)


@pytest.mark.parametrize("line", ["a *:* rwm", "c 195:0 rw", "b 254:0 r", "b *:* rwm", "c 1:1 rwm", "odd"])
def test_a_device_is_named(line: str) -> None:
    real = view("docker")
    (listed,) = real.group["devices.list"]
    group = dict(real.group) | {"devices.list": (f"{listed}\n{line}\n",)}
    assert problems(dataclasses.replace(real, group=group), asked("docker")) == ("devices",)
    leased = dataclasses.replace(asked("docker"), devices=frozenset({"195:0"}))
    assert (problems(dataclasses.replace(real, group=group), leased) == ()) == (line == "c 195:0 rw")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_is_named(engine: str) -> None:
    real = view(engine)
    more = real.net_dev + "  eth0:       0       0    0    0    0     0          0         0\n"
    assert problems(dataclasses.replace(real, net_dev=more), asked(engine)) == ("a network",)
    for odd in ("", "what"):
        assert problems(dataclasses.replace(real, net_dev=odd), asked(engine)) == ("no list of networks",)


MOUNTS = [
    (" / / ro,relatime", " / / rw,relatime", "a writable root at /"),
    (" /train/data ro,", " /train/data rw,", "a writable mount at /train/data"),
    (" /train/control ro,", " /train/control rw,", "a writable mount at /train/control"),
    ("/srv/compute/cohorts/run-1 ", "/srv/compute/cohorts/run-2 ", "another place at /train/data"),
    ("/srv/compute/cohorts/run-1 ", "/etc ", "another place at /train/data"),
    ("254:0 /srv/compute/control/run-1", "254:1 /srv/compute/control/run-1", "another place at /train/control"),
    (" /tmp rw,nosuid,", " /tmp rw,", "no closed memory at /tmp"),
    (" /train/scratch rw,nosuid,nodev,noexec,", " /train/scratch rw,nosuid,nodev,", "no closed memory at /train/scratch"),
    (" /train/scratch rw,nosuid,nodev,", " /train/scratch rw,nosuid,", "no closed memory at /train/scratch"),
    (" /dev/shm rw,nosuid,nodev,noexec,", " /dev/shm rw,nosuid,nodev,", "no closed memory at /dev/shm"),
    ("shm rw,size=32768k", "shm rw,size=65536k", "memory without its ceiling at /dev/shm"),
    ("shm rw,size=32768k", "shm rw", "memory without its ceiling at /dev/shm"),
    (" /proc rw,nosuid,nodev,noexec,", " /proc rw,nosuid,nodev,", "an open mount at /proc"),
    (" /sys ro,", " /sys rw,", "an open mount at /sys"),
    (" /proc/sys ro,", " /proc/sys rw,", "a mount that nobody asked for at /proc/sys"),
    (" /sys/firmware ro,relatime - tmpfs tmpfs ro", " /sys/firmware ro,relatime - sysfs sysfs ro", "/sys/firmware is not closed"),
    (" /etc/hostname ro,", " /etc/hostname rw,", "a writable mount at /etc/hostname"),
    (f"{CONTAINER}/userdata/hostname", "d/userdata/hostname", "a mount that nobody asked for at /etc/hostname"),
    (" /train/data ro,", " /train/more ro,", "a mount that nobody asked for at /train/more"),
    (" /train/data ro,", " /train/data\\012x ro,", "a mount that nobody asked for at a place with an odd name"),
]  # fmt: skip


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize(("old", "new", "problem"), MOUNTS)
def test_a_mount_that_is_not_as_asked_is_named(engine: str, old: str, new: str, problem: str) -> None:
    if engine == "docker" and "userdata" in old:
        old, new = f"{CONTAINER}/hostname", "d/hostname"
    seen = called(changed(engine, "mountinfo", old, new), "crun")
    found = problems(seen, asked(engine))
    assert problem in found
    assert patience_s(found, seen, asked(engine)) == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("200 78 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw", None),
        ("200 78 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw", "an open mount"),
        ("200 78 0:5 /null /dev/null rw,nosuid - devtmpfs udev rw", None),
        ("200 78 0:5 /urandom /dev/urandom rw,nosuid - devtmpfs udev rw", None),
        ("200 78 0:5 /vda /dev/null rw,nosuid - devtmpfs udev rw", "another node"),
        ("200 78 254:0 /null /dev/null rw,nosuid - ext4 /dev/vda rw", "another node"),
        ("200 78 0:5 /vda /dev/vda rw,nosuid - devtmpfs udev rw", "a mount that nobody asked for"),
    ],
)
def test_mounts_of_other_hosts(line: str, problem: str | None) -> None:
    real = view("docker")
    kept = [each for each in real.first.mountinfo.splitlines() if "/sys/fs/cgroup" not in each]
    other = dataclasses.replace(real.first, mountinfo="\n".join([*kept, line]))
    found = problems(dataclasses.replace(real, first=other), asked("docker"))
    assert found == (() if problem is None else (f"{problem} at {line.split()[4]}",))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        # Where an image has links: /sbin to usr/bin, /etc/resolv.conf into /run.
        ("200 78 254:0 /usr/bin/docker-init /usr/bin/docker-init ro - ext4 /dev/vda rw", None),
        ("200 78 254:0 /usr/bin/docker-init /usr/bin/docker-init rw - ext4 /dev/vda rw", "a writable mount"),
        (f"200 78 254:0 /d/{CONTAINER}/resolv.conf /run/systemd/resolve/x ro - ext4 /dev/vda rw", None),
        (f"200 78 254:0 /d/{CONTAINER}/resolv.conf /run/x rw - ext4 /dev/vda rw", "a writable mount"),
        (f"200 78 254:0 /d/{CONTAINER}/config.v2.json /run/x ro - ext4 /dev/vda rw", "a mount that nobody asked for"),
        (f"200 78 254:0 /d/{'d' * 64}/resolv.conf /run/x ro - ext4 /dev/vda rw", "a mount that nobody asked for"),
        (f"200 78 254:0 /d/{CONTAINER}/hosts /etc/group ro - ext4 /dev/vda rw", "a mount that nobody asked for"),
        (f"200 78 254:0 /d/{CONTAINER}/hosts /proc/hosts ro - ext4 /dev/vda rw", "a mount that nobody asked for"),
    ],
)  # fmt: skip
def test_files_of_the_engine_lie_where_an_image_leads_to(line: str, problem: str | None) -> None:
    real = view("docker")
    more = dataclasses.replace(real.first, mountinfo=real.first.mountinfo + line + "\n")
    found = problems(dataclasses.replace(real, first=more), asked("docker"))
    assert found == (() if problem is None else (f"{problem} at {line.split()[4]}",))


def test_memory_is_rounded_up_to_this_machines_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    larger = changed("docker", "mountinfo", "shm rw,size=32768k", "shm rw,size=32832k")
    real = asked("docker").mounts
    less = dataclasses.replace(real, memory={**real.memory, "/dev/shm": Memory(32 * MIB + 1)})
    wanted = dataclasses.replace(asked("docker"), mounts=less)
    for page, found in ((4096, ("memory without its ceiling at /dev/shm",)), (65536, ())):
        monkeypatch.setattr(mounts, "PAGESIZE", page)
        assert problems(larger, wanted) == found


@pytest.mark.parametrize("path", ON_THIS_HOST)
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_what_the_host_has_must_be_closed(engine: str, path: str) -> None:
    real = view(engine)
    kept = [line for line in real.first.mountinfo.splitlines() if f" {path} " not in line]
    less = dataclasses.replace(real.first, mountinfo="\n".join(kept))
    assert problems(dataclasses.replace(real, first=less), asked(engine)) == (f"{path} is not closed",)


@pytest.mark.parametrize(
    "line",
    [
        "200 78 254:0 / /host rw,relatime - ext4 /dev/vda rw",
        "200 78 254:0 /var/run/docker.sock /var/run/docker.sock ro,relatime - ext4 /dev/vda rw",
        "200 78 0:99 / /train/more rw,nosuid,nodev,noexec - tmpfs tmpfs rw,size=4k",
        "200 78 254:0 /root /proc/fs/root ro,relatime - ext4 /dev/vda rw",
        "200 78 254:0 /x /etc/passwd ro,relatime - ext4 /dev/vda rw",
        "200 78 254:0 /bin/sh /sbin/docker-init ro,relatime - ext4 /dev/vda rw",
        "200 78 254:0 /usr/lib/libcuda.so.1 /usr/lib/libcuda.so.1 ro - ext4 /dev/vda rw",
        "200 78 254:0 /srv/compute/cohorts/run-1 /train/data ro,relatime - ext4 /dev/vda rw",
        "200 78",
        "",
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_one_mount_more_is_named(engine: str, line: str) -> None:
    real = view(engine)
    more = dataclasses.replace(real.first, mountinfo=real.first.mountinfo + line + "\n")
    assert problems(dataclasses.replace(real, first=more), asked(engine)) != ()


def test_a_gpus_driver_is_the_only_exception() -> None:
    driver = "/usr/lib/libcuda.so.1"
    with_gpu = dataclasses.replace(
        asked("docker"),
        mounts=dataclasses.replace(asked("docker").mounts, is_driver_mount=lambda target: target == driver),
    )
    real = view("docker")

    def seen(line: str) -> KernelView:
        return dataclasses.replace(
            real, first=dataclasses.replace(real.first, mountinfo=real.first.mountinfo + line + "\n")
        )

    assert problems(seen(f"200 78 254:0 {driver} {driver} ro - ext4 /dev/vda rw"), with_gpu) == ()
    assert problems(seen(f"200 78 254:0 {driver} {driver} rw - ext4 /dev/vda rw"), with_gpu) != ()
    assert problems(seen("200 78 254:0 /etc /usr/lib/x.so ro - ext4 /dev/vda rw"), with_gpu) != ()


@pytest.mark.parametrize(
    ("part", "old", "new", "problem"),
    [
        ("status", "NoNewPrivs:\t1", "NoNewPrivs:\t0", "new privileges"),
        ("status", "Seccomp:\t2", "Seccomp:\t0", "no seccomp filter"),
        ("status", "CapEff:\t000000000004001f", "CapEff:\t000000000024001f", "capabilities (CapEff)"),
        ("mountinfo", " / / ro,", " / / rw,", "a writable root at /"),
        ("mountinfo", "/srv/compute/cohorts/run-1 ", "/etc ", "another place at /train/data"),
        ("mountinfo", " /train/data ", " /train/more ", "a mount that nobody asked for at /train/more"),
    ],
)
def test_gvisors_helpers_are_held_too(part: str, old: str, new: str, problem: str) -> None:
    real = view("docker-gvisor")
    text = getattr(real.others[0], part)
    assert old in text
    worse = dataclasses.replace(real.others[0], **{part: text.replace(old, new, 1)})
    seen = dataclasses.replace(real, others=(worse,))
    found = problems(seen, asked("docker-gvisor"))
    assert problem in found
    assert patience_s(found, seen, asked("docker-gvisor")) == (GVISOR_S if part == "status" else 0)


def test_gvisors_helpers_must_be_there() -> None:
    real = dataclasses.replace(view("docker-gvisor"), others=())
    found = problems(real, asked("docker-gvisor"))
    assert found == ("no process with the mounts asked for",)
    assert patience_s(found, real, asked("docker-gvisor")) == GVISOR_S
    with_network = dataclasses.replace(real, net_dev=real.net_dev + "  eth0: 0\n")
    found = problems(with_network, asked("docker-gvisor"))
    assert patience_s(found, with_network, asked("docker-gvisor")) == 0


def test_another_runtime_does_not_pass_for_gvisor_and_the_other_way_round() -> None:
    assert problems(view("docker"), asked("docker-gvisor")) != ()
    assert problems(view("docker-gvisor"), asked("docker")) != ()


def test_users_of_a_remapped_namespace() -> None:
    remapped = "         0     100000      65536\n"
    assert on_host(remapped, 10_007) == 110_007
    assert on_host(remapped, UID) is None
    assert on_host("", 1) is None
    assert on_host("0 0", 1) is None
    assert on_host("         0          0 4294967295\n", UID) == UID
    real = dataclasses.replace(view("docker"), uid_map=remapped)
    assert "another user" in problems(real, asked("docker"))


def test_no_process_is_a_problem_that_may_pass() -> None:
    found = problems(None, asked("docker"))
    assert found != ()
    assert patience_s(found, None, asked("docker")) > 0


texts = st.text(max_size=200) | st.sampled_from(
    ["Uid:\t1", "1 2 3 4 5 6 - 7 8 9", "Max open files" + " " * 40]
)


@given(first=texts, second=texts, third=texts, numbers=texts)
@pytest.mark.parametrize("engine", ENGINES)
def test_odd_texts_are_problems_and_never_errors(
    engine: str, first: str, second: str, third: str, numbers: str
) -> None:
    odd = KernelView(
        first=ProcessView(first, second),
        limits=third,
        net_dev=first,
        uid_map=second,
        gid_map=third,
        group={"memory.limit_in_bytes": (numbers,), "cpu.max": (first,), "devices.list": (second,)},
        others=(ProcessView(second, first),),
        on_this_host=ON_THIS_HOST,
    )
    assert problems(odd, asked(engine)) != ()
    user_of(odd)


@given(text=st.text())
def test_a_list_of_mounts_is_read_or_it_is_not(text: str) -> None:
    found = parse_mounts(text)
    assert found is None or len(found) >= 1
