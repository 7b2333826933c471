"""How Podman is asked for the same restrictions, and what of its answers is believed."""

import copy
import json
import resource
import subprocess
import sys
from socket import AF_INET, AF_INET6, AF_NETLINK, AF_UNIX
from typing import Any

import pytest

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine import hardening
from station.sandbox.engine.choosing import dialect_of
from station.sandbox.engine.dialect import Terms
from station.sandbox.engine.mounts import AskedMounts, mount_problems
from station.sandbox.engine.podman import COVERED, SECCOMP, PodmanDialect
from station.sandbox.engine.seccomp import PROFILE, podman_profile
from station.sandbox.image.rewriting import rewrite
from station.sandbox.launcher.limiting import set_limits
from station.sandbox.spec import FIRST_UID, MIB, ContainerSpec

PODMAN = PodmanDialect()
UID = 1_900_000_007
IMAGE = "sha256:" + "b" * 64
SPEC = ContainerSpec.model_validate(
    {
        "run_id": "run-1",
        "image_config_digest": "sha256:" + "a" * 64,
        "cohort_dir": "/srv/compute/cohorts/run-1",
        "control_dir": "/srv/compute/control/run-1",
        "memory_bytes": 512 * MIB,
        "cpus": 1.5,
        "pids": 64,
        "scratch_bytes": 32 * MIB,
        "wall_clock_s": 60,
    }
)
TERMS = Terms(IMAGE, UID, {"nl.pht.run": "run-1"})
OPEN = f"rw,nosuid,nodev,noexec,mode=0700,size={32 * MIB},notmpcopyup,U"
CLOSED = "ro,nosuid,nodev,noexec,notmpcopyup,mode=0555,size=4096"


def body() -> dict[str, Any]:
    return PODMAN.create_body(SPEC, TERMS)


def test_everything_that_docker_is_asked_for_is_asked_for_but_what_podman_says_otherwise() -> None:
    docker: dict[str, Any] = hardening.create_body(SPEC, TERMS)
    asked = body()
    assert set(docker) - set(asked) == {"Healthcheck"}
    assert {key for key in asked if asked[key] != docker[key]} == {"HostConfig"}
    assert set(asked["HostConfig"]) == set(docker["HostConfig"])
    assert {key for key, value in asked["HostConfig"].items() if value != docker["HostConfig"][key]} == {
        "Runtime",
        "Ulimits",
        "Tmpfs",
        "Mounts",
        "LogConfig",
        "SecurityOpt",
    }


def test_writable_places_belong_to_the_fresh_user_and_the_others_are_closed() -> None:
    assert body()["HostConfig"]["Tmpfs"] == {
        "/tmp": OPEN,
        "/train/scratch": OPEN,
        "/run": CLOSED,
        "/var/tmp": CLOSED,
    }


def test_processes_are_limited_twice() -> None:
    host = body()["HostConfig"]
    assert host["PidsLimit"] == 64
    assert {"Name": "nproc", "Soft": 64, "Hard": 64} in host["Ulimits"]
    assert {each["Name"] for each in host["Ulimits"]} == {"nofile", "core", "fsize", "nproc"}


def test_the_log_is_one_file_of_a_bounded_size() -> None:
    assert body()["HostConfig"]["LogConfig"] == {"Type": "k8s-file", "Config": {"max-size": "1048576"}}


def test_calls_are_allowed_by_a_profile_of_ours() -> None:
    assert body()["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={SECCOMP}"]
    assert SECCOMP.stat().st_mode & 0o004
    assert SECCOMP.read_text("utf-8") == podman_profile(), "written by station.sandbox.engine.seccomp"
    profile = json.loads(SECCOMP.read_text())
    assert profile["syscalls"] == json.loads(PROFILE)["syscalls"]
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    granted = [each for each in profile["syscalls"] if each["action"] == "SCMP_ACT_ALLOW"]
    allowed = {name for each in granted if not each["args"] for name in each["names"]}
    assert not allowed & {
        "unshare", "setns", "clone", "clone3", "mount", "umount2", "pivot_root", "chroot", "keyctl", "add_key", "request_key",
        "ptrace", "process_vm_readv", "process_vm_writev", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "socket",
        "socketpair",
        "init_module", "kexec_load", "reboot", "open_by_handle_at", "syslog", "personality", "fsopen", "move_mount",
    }  # fmt: skip
    arguments = {(each["names"][0], each["args"][0]["value"]) for each in granted if each["args"]}
    namespaces = 0x7E020080
    families = {("socket", int(each)) for each in (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)}
    families.add(("socketpair", int(AF_UNIX)))
    assert {each for each in arguments if each[0] != "personality"} == {("clone", namespaces)} | families


def test_the_end_at_the_memory_limit_is_known_though_the_engine_misses_it() -> None:
    ended = {"Running": False, "ExitCode": 137, "OOMKilled": False}
    assert PODMAN.out_of_memory(ended)
    assert PODMAN.out_of_memory({"Running": True, "ExitCode": 0, "OOMKilled": True})
    assert not PODMAN.out_of_memory(ended | {"ExitCode": 1})
    assert not PODMAN.out_of_memory({"Running": True, "ExitCode": 0, "OOMKilled": False})


def test_names_of_the_hospital_are_covered_by_files_that_anyone_may_read() -> None:
    mounts = {each["Target"]: each for each in body()["HostConfig"]["Mounts"]}
    assert set(mounts) == {"/train/data", "/train/control", "/etc/hosts", "/etc/resolv.conf"}
    assert all(each["ReadOnly"] for each in mounts.values())
    for target, source in COVERED.items():
        assert mounts[target]["Source"] == str(source)
        assert source.stat().st_mode & 0o004
    assert COVERED["/etc/hosts"].read_text().split() == [
        "127.0.0.1",
        "localhost",
        "train",
        "::1",
        "localhost",
    ]
    assert COVERED["/etc/resolv.conf"].read_text() == "nameserver 127.0.0.1\nsearch .\n"


def inspected() -> dict[str, Any]:
    """What Podman 4.3.1 shows of the container that it was asked for, before its start."""
    asked = copy.deepcopy(body())
    host = asked.pop("HostConfig")
    mounts = [
        {"Type": "bind", "Source": each["Source"], "Destination": each["Target"], "RW": False}
        for each in host.pop("Mounts")
    ]
    asked["Image"] = asked["Image"].removeprefix("sha256:")
    asked["Env"] = [*asked["Env"], "PATH=/usr/bin", "TERM=xterm", "container=podman", "HOSTNAME=train"]
    host |= {
        "Tmpfs": {
            target: f"{options.replace(',notmpcopyup', '')},rprivate"
            for target, options in host["Tmpfs"].items()
        },
        "Ulimits": [each | {"Name": f"RLIMIT_{each['Name'].upper()}"} for each in host["Ulimits"]],
        "CapDrop": ["CHOWN", "KILL"],
        "CapAdd": [],
        "SecurityOpt": ["no-new-privileges", f"seccomp={SECCOMP}"],
        "Runtime": "oci",
        "LogConfig": {"Type": "json-file", "Config": None},
        "IpcMode": "shareable",
        "PidMode": "private",
        "UTSMode": "private",
        "CgroupnsMode": "",
        "Links": None,
        "DeviceRequests": None,
        "MaskedPaths": None,
        "ReadonlyPaths": None,
    }
    own: dict[str, Any] = {
        "OCIRuntime": "crun",
        "EffectiveCaps": None,
        "BoundingCaps": None,
        "Pod": "",
        "Dependencies": [],
        "HostConfig": {"LogConfig": {"Type": "k8s-file", "Size": "1.049MB"}},
    }
    return {"Image": IMAGE, "Config": asked, "HostConfig": host, "Mounts": mounts, "own": own}


def test_an_engine_that_did_as_asked_differs_in_nothing() -> None:
    assert PODMAN.differences(body(), inspected()) == ()


WEAKER: dict[str, object] = {
    "NetworkMode": "slirp4netns",
    "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
    "PublishAllPorts": True,
    "Links": ["other"],
    "ExtraHosts": ["a:1.2.3.4"],
    "Dns": ["10.0.0.1"],
    "DnsOptions": ["x"],
    "DnsSearch": ["hospital.example"],
    "Privileged": True,
    "CapAdd": ["SYS_ADMIN"],
    "GroupAdd": ["keep-groups"],
    "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
    "Devices": [{"PathOnHost": "/dev/kvm"}],
    "DeviceCgroupRules": ["a *:* rwm"],
    "DeviceRequests": [{"Count": -1}],
    "IpcMode": "host",
    "PidMode": "host",
    "UTSMode": "host",
    "UsernsMode": "keep-id",
    "CgroupnsMode": "host",
    "ReadonlyRootfs": False,
    "VolumesFrom": ["other"],
    "Tmpfs": {},
    "ShmSize": 1 << 40,
    "Memory": 0,
    "MemorySwap": -1,
    "OomKillDisable": True,
    "OomScoreAdj": -900,
    "NanoCpus": 0,
    "PidsLimit": 0,
    "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    "AutoRemove": True,
    "Init": False,
}


@pytest.mark.parametrize("name", sorted(WEAKER))
def test_an_engine_that_weakens_a_restriction_is_noticed(name: str) -> None:
    shown = inspected()
    shown["HostConfig"][name] = WEAKER[name]
    assert PODMAN.differences(body(), shown) == (name,)


def test_what_is_not_compared_is_another_answers_or_the_kernels() -> None:
    """Its inspection has no place for them, or tells them otherwise: of limits and groups what the kernel shows counts."""
    assert set(body()["HostConfig"]) - set(WEAKER) == {
        "CapDrop",
        "CgroupParent",
        "Ulimits",
        "Sysctls",
        "Runtime",
        "Binds",
        "Mounts",
        "LogConfig",
    }


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"OCIRuntime": "/opt/other"}, "Runtime"),
        ({"EffectiveCaps": ["CAP_KILL"]}, "CapDrop"),
        ({"BoundingCaps": ["CAP_KILL"]}, "CapDrop"),
        ({"HostConfig": {"LogConfig": {"Type": "journald", "Size": "1MB"}}}, "LogConfig"),
        ({"HostConfig": {"LogConfig": {"Type": "k8s-file", "Size": ""}}}, "LogConfig"),
        ({"Pod": "1"}, "Pod"),
        ({"Dependencies": ["1"]}, "Pod"),
        ({"HostConfig": None}, "own-inspect"),
    ],
)
def test_what_only_podmans_own_answer_shows_is_noticed(change: dict[str, object], name: str) -> None:
    shown = inspected()
    shown["own"] |= change
    assert PODMAN.differences(body(), shown) == (name,)


@pytest.mark.parametrize("change", ["writable", "other source", "one more", "missing"])
def test_a_mount_that_is_not_as_asked_is_noticed(change: str) -> None:
    shown = inspected()
    if change == "writable":
        shown["Mounts"][0]["RW"] = True
    elif change == "other source":
        shown["Mounts"][0]["Source"] = "/"
    elif change == "one more":
        shown["Mounts"].append({"Type": "volume", "Source": "/v", "Destination": "/v", "RW": False})
    else:
        shown["Mounts"] = None
    assert PODMAN.differences(body(), shown) == ("Mounts",)


@pytest.mark.parametrize(
    "options", [f"{OPEN},exec", OPEN.replace("noexec,", ""), OPEN.replace(f"{32 * MIB}", "99999999999"), ""]
)
def test_a_tmpfs_that_is_not_as_asked_is_noticed(options: str) -> None:
    shown = inspected()
    shown["HostConfig"]["Tmpfs"]["/tmp"] = options
    assert PODMAN.differences(body(), shown) == ("Tmpfs",)


@pytest.mark.parametrize(
    "variable", ["HTTPS_PROXY=http://proxy.hospital.example", "LD_PRELOAD=/x", "HOME=/", "SECRET"]
)
def test_variables_of_the_host_are_noticed(variable: str) -> None:
    shown = inspected()
    shown["Config"]["Env"].append(variable)
    assert PODMAN.differences(body(), shown) == ("Env",)


def test_a_variable_that_is_missing_is_noticed() -> None:
    shown = inspected()
    shown["Config"]["Env"].remove("HOME=/tmp")
    assert PODMAN.differences(body(), shown) == ("Env",)


@pytest.mark.parametrize("name", ["User", "Entrypoint", "WorkingDir", "Hostname"])
def test_another_program_or_user_is_noticed(name: str) -> None:
    shown = inspected()
    shown["Config"][name] = "other"
    assert PODMAN.differences(body(), shown) == (name,)


def test_another_image_is_noticed() -> None:
    assert PODMAN.differences(body(), inspected() | {"Image": "sha256:" + "c" * 64}) == ("Image",)


def test_an_answer_without_its_parts_differs() -> None:
    assert PODMAN.differences(body(), {}) == ("inspect",)
    without = inspected()
    del without["own"]
    assert PODMAN.differences(body(), without) == ("own-inspect",)


ROOTFUL: dict[str, Any] = {
    "OSType": "linux",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "CgroupVersion": "1",
    "Rootless": False,
    "DefaultRuntime": "crun",
    "own": {
        "host": {
            "cgroupControllers": ["cpuset", "cpu", "cpuacct", "memory", "pids"],
            "idMappings": {"uidmap": None, "gidmap": None},
            "security": {
                "rootless": False,
                "seccompEnabled": True,
            },
        }
    },
}
MAPPED = [
    {"container_id": 0, "host_id": 1000, "size": 1},
    {"container_id": 1, "host_id": 100000, "size": 65536},
]


def rootful(**host: object) -> dict[str, Any]:
    made = copy.deepcopy(ROOTFUL)
    made["own"]["host"] |= host
    return made


def rootless(**host: object) -> dict[str, Any]:
    made = rootful(idMappings={"uidmap": MAPPED, "gidmap": MAPPED}, **host)
    made["own"]["host"]["security"]["rootless"] = True
    return made | {"Rootless": True, "CgroupVersion": "2"}


def test_a_fit_engine_has_no_reason_against_it() -> None:
    assert PODMAN.unfit(ROOTFUL, None) == ()
    assert PODMAN.unfit(ROOTFUL, "crun") == ()
    assert PODMAN.unfit(ROOTFUL | {"DefaultRuntime": "runc"}, None) == ()
    # Under control groups of version 2 Docker's flags speak of another group.
    unlimited = {"SwapLimit": False, "CpuCfsQuota": False}
    assert PODMAN.unfit(rootless(cgroupControllers=["cpu", "memory", "pids"]) | unlimited, None) == ()


SECURITY = ROOTFUL["own"]["host"]["security"]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (ROOTFUL | {"OSType": "freebsd"}, "not-linux"),
        (rootful(security=SECURITY | {"seccompEnabled": False}), "no-seccomp"),
        (rootful(security=SECURITY | {"seccompEnabled": None}), "no-seccomp"),
        (ROOTFUL | {"MemoryLimit": False}, "no-memory-limit"),
        (ROOTFUL | {"SwapLimit": False}, "no-swap-limit"),
        (ROOTFUL | {"PidsLimit": False}, "no-pids-limit"),
        (ROOTFUL | {"CpuCfsQuota": False}, "no-cpu-quota"),
        (ROOTFUL | {"DefaultRuntime": "runsc"}, "no-crun-or-runc"),
        (rootful(cgroupControllers=["cpu", "memory"]), "no-pids-controller"),
        (rootless() | {"CgroupVersion": "1"}, "rootless-without-cgroup-v2"),
        (rootless(cgroupControllers=["memory", "pids"]), "no-cpu-controller"),
        (rootless() | {"Rootless": False, "CgroupVersion": "1"}, "rootless-without-cgroup-v2"),
    ],
)
def test_an_engine_that_cannot_enforce_is_named(info: dict[str, Any], reason: str) -> None:
    assert PODMAN.unfit(info, None) == (reason,)


@pytest.mark.parametrize("mapping", [None, MAPPED[:1], [MAPPED[0], MAPPED[1] | {"size": 5000}], "x"])
@pytest.mark.parametrize("name", ["uidmap", "gidmap"])
def test_a_rootless_engine_without_enough_users_is_named(name: str, mapping: object) -> None:
    info = rootless()
    info["own"]["host"]["idMappings"][name] = mapping
    assert PODMAN.unfit(info, None) == ("rootless-without-subordinate-users",)


def test_a_runtime_that_is_not_the_services_own_is_named() -> None:
    assert PODMAN.unfit(ROOTFUL, "runsc") == ("no-runsc",)
    assert PODMAN.unfit(ROOTFUL, "runc") == ("no-runc",)


def test_an_engine_that_says_nothing_is_unfit() -> None:
    assert set(PODMAN.unfit({}, None)) >= {
        "not-linux",
        "no-seccomp",
        "rootless-without-cgroup-v2",
        "no-memory-controller",
        "no-crun-or-runc",
    }


def test_fresh_users_lie_among_those_that_the_engine_may_give() -> None:
    assert PODMAN.uids(ROOTFUL)[0] == FIRST_UID
    users = PODMAN.uids(rootless())
    assert 1000 <= users[0] < users[-1] < 65536
    assert PODMAN.uids({}) == users


def test_a_rootless_engine_leaves_limits_per_process_to_the_launcher() -> None:
    assert PODMAN.drops_limits(rootless())
    assert not PODMAN.drops_limits(ROOTFUL)


def test_the_launcher_sets_limits_on_a_process_that_waits_and_raises_none() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        resource.prlimit(waiting.pid, resource.RLIMIT_NOFILE, (256, 256))
        set_limits(waiting.pid, body())
        assert resource.prlimit(waiting.pid, resource.RLIMIT_NOFILE) == (256, 256)
        assert resource.prlimit(waiting.pid, resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(waiting.pid, resource.RLIMIT_FSIZE) == (32 * MIB, 32 * MIB)
        assert resource.prlimit(waiting.pid, resource.RLIMIT_NPROC) == (64, 64)
        waiting.kill()


def test_limits_that_cannot_be_set_refuse() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    with pytest.raises(RefusedError) as caught:
        set_limits(ended.pid, body())
    assert caught.value.code == RefusalCode.ENGINE_UNFIT


NODE = "30 20 0:5 /{source} /dev/{target} rw,nosuid,noexec - {kind} udev rw,size=4096k,mode=755"


@pytest.mark.parametrize("name", ["null", "zero", "full", "tty", "random", "urandom"])
def test_a_rootless_engine_may_show_the_hosts_plain_nodes(name: str) -> None:
    assert node_problems(source=name, target=name, kind="devtmpfs") == []


@pytest.mark.parametrize(
    ("source", "target", "kind", "problem"),
    [
        ("sda", "null", "devtmpfs", "another node at /dev/null"),
        ("null", "null", "ext4", "another node at /dev/null"),
        ("sda", "sda", "devtmpfs", "a mount that nobody asked for at /dev/sda"),
        ("kvm", "kvm", "devtmpfs", "a mount that nobody asked for at /dev/kvm"),
    ],
)
def test_other_nodes_of_the_host_are_refused(source: str, target: str, kind: str, problem: str) -> None:
    assert node_problems(source=source, target=target, kind=kind) == [problem]


def node_problems(**names: str) -> list[str]:
    found = mount_problems(NODE.format(**names), AskedMounts({}, {}, "0" * 64), ())
    return [each for each in found if not each.startswith("no mount at")]


def test_images_go_by_their_config_and_whole() -> None:
    made = rewrite({"os": "linux", "architecture": "amd64"}, ("sha256:" + "c" * 64,), (10,))
    assert PODMAN.image_id(made, ROOTFUL) == made.config_digest
    assert not PODMAN.may_skip_layers(ROOTFUL)


def test_an_engine_is_known_by_its_components() -> None:
    assert dialect_of({"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]}).name == "podman"
    assert dialect_of({"Components": [{"Name": "Engine"}]}).name == "docker"
    with pytest.raises(RefusedError):
        dialect_of({"Components": [{"Name": "Engine of another kind"}]})
