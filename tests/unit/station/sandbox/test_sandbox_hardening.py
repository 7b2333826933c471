"""Every restriction stands in a table here: removing one from the code fails a line of it."""

import copy
from typing import Any

import pytest

from station.sandbox.engine.dialect import Terms
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.engine.seccomp import PROFILE
from station.sandbox.image.rewriting import rewrite
from station.sandbox.spec import MIB, ContainerSpec

DOCKER = DockerDialect()
UID = 1_900_000_007
TMPFS = f"rw,nosuid,nodev,noexec,nr_inodes=65536,uid={UID},gid={UID},mode=0700"


def spec(**changed: object) -> ContainerSpec:
    values: dict[str, object] = {
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
    return ContainerSpec.model_validate(values | changed)


def body(**changed: object) -> dict[str, Any]:
    terms = Terms("sha256:" + "b" * 64, UID, {"nl.pht.run": "run-1"})
    return DOCKER.create_body(spec(**changed), terms)


MOUNTS = [
    {
        "Type": "bind",
        "Source": f"/srv/compute/{source}/run-1",
        "Target": target,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "private", "NonRecursive": True},
    }
    for source, target in (("cohorts", "/train/data"), ("control", "/train/control"))
]

HOST_CONFIG = {
    "NetworkMode": "none",
    "PortBindings": {},
    "PublishAllPorts": False,
    "Links": [],
    "ExtraHosts": [],
    "Dns": ["127.0.0.1"],
    "DnsOptions": [],
    "DnsSearch": ["."],
    "Privileged": False,
    "CapAdd": [],
    "CapDrop": ["ALL"],
    "GroupAdd": [],
    "SecurityOpt": ["no-new-privileges:true", f"seccomp={PROFILE}"],
    "Devices": [],
    "DeviceCgroupRules": [],
    "DeviceRequests": [],
    "Sysctls": {},
    "Runtime": "runc",
    "IpcMode": "private",
    "PidMode": "",
    "UTSMode": "",
    "UsernsMode": "",
    "CgroupnsMode": "private",
    "CgroupParent": "",
    "ReadonlyRootfs": True,
    "Binds": [],
    "VolumesFrom": [],
    "Mounts": MOUNTS,
    "Tmpfs": {"/tmp": f"{TMPFS},size={32 * MIB}", "/train/scratch": f"{TMPFS},size={32 * MIB}"},
    "ShmSize": 32 * MIB,
    "Memory": 512 * MIB,
    "MemorySwap": 512 * MIB,
    "OomKillDisable": False,
    "OomScoreAdj": 500,
    "NanoCpus": 1_500_000_000,
    "PidsLimit": 64,
    "Ulimits": [
        {"Name": "nofile", "Soft": 4096, "Hard": 4096},
        {"Name": "core", "Soft": 0, "Hard": 0},
        {"Name": "fsize", "Soft": 32 * MIB, "Hard": 32 * MIB},
    ],
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "1048576", "max-file": "2"}},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "Init": True,
}

CONFIG = {
    "User": f"{UID}:{UID}",
    "Entrypoint": ["/opt/train/bin/python", "-m", "pht_runtime"],
    "Cmd": [],
    "WorkingDir": "/train/scratch",
    "Hostname": "train",
    "Domainname": "",
    "NetworkDisabled": True,
    "Tty": False,
    "OpenStdin": False,
    "Volumes": {},
    "ExposedPorts": {},
    "Healthcheck": {"Test": ["NONE"]},
    "Image": "sha256:" + "b" * 64,
    "Labels": {"nl.pht.run": "run-1"},
}


@pytest.mark.parametrize("name", sorted(HOST_CONFIG))
def test_each_restriction_is_asked_for(name: str) -> None:
    assert body()["HostConfig"][name] == HOST_CONFIG[name]


def test_nothing_else_is_asked_for() -> None:
    assert set(body()["HostConfig"]) == set(HOST_CONFIG)


@pytest.mark.parametrize("name", sorted(CONFIG))
def test_the_station_chooses_program_user_and_place(name: str) -> None:
    assert body()[name] == CONFIG[name]


def test_the_shared_memory_and_tmp_have_a_ceiling_of_their_own() -> None:
    host = body(scratch_bytes=4096 * MIB)["HostConfig"]
    assert host["ShmSize"] == 256 * MIB
    assert host["Tmpfs"]["/tmp"].endswith(f"size={256 * MIB}")


def inspected() -> dict[str, Any]:
    """What an honest engine shows of the container."""
    asked = copy.deepcopy(body())
    host = asked.pop("HostConfig")
    host |= {"Links": None, "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"]}
    mounts = [
        {"Type": "bind", "Source": each["Source"], "Destination": each["Target"], "RW": False}
        for each in MOUNTS
    ]
    return {"Config": asked, "HostConfig": host, "Mounts": mounts}


def test_an_engine_that_did_as_asked_differs_in_nothing() -> None:
    assert DOCKER.differences(body(), inspected()) == ()


WEAKER: dict[str, object] = {
    "NetworkMode": "bridge",
    "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
    "PublishAllPorts": True,
    "Links": ["other"],
    "ExtraHosts": ["a:1.2.3.4"],
    "Dns": ["10.0.0.1"],
    "DnsOptions": ["x"],
    "DnsSearch": ["hospital.example"],
    "Privileged": True,
    "CapAdd": ["SYS_ADMIN"],
    "CapDrop": [],
    "GroupAdd": ["docker"],
    "SecurityOpt": [],
    "Devices": [{"PathOnHost": "/dev/vda"}],
    "DeviceCgroupRules": ["a *:* rwm"],
    "DeviceRequests": [{"Count": -1}],
    "Sysctls": {"kernel.msgmax": "1"},
    "Runtime": "other",
    "IpcMode": "host",
    "PidMode": "host",
    "UTSMode": "host",
    "UsernsMode": "host",
    "CgroupnsMode": "host",
    "CgroupParent": "/other",
    "ReadonlyRootfs": False,
    "Binds": ["/:/host"],
    "VolumesFrom": ["other"],
    "Mounts": [],
    "Tmpfs": {},
    "ShmSize": 1 << 40,
    "Memory": 0,
    "MemorySwap": -1,
    "OomKillDisable": True,
    "OomScoreAdj": -900,
    "NanoCpus": 0,
    "PidsLimit": None,
    "Ulimits": None,
    "LogConfig": {"Type": "syslog", "Config": {}},
    "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    "AutoRemove": True,
    "Init": None,
    "MaskedPaths": [],
    "ReadonlyPaths": None,
}


@pytest.mark.parametrize("name", sorted(WEAKER))
def test_an_engine_that_weakens_a_restriction_is_noticed(name: str) -> None:
    shown = inspected()
    shown["HostConfig"][name] = WEAKER[name]
    assert name in DOCKER.differences(body(), shown)


def test_the_table_of_weaker_values_is_complete() -> None:
    assert set(HOST_CONFIG) <= set(WEAKER)


@pytest.mark.parametrize("change", ["writable", "other source", "one more", "missing"])
def test_a_mount_that_is_not_as_asked_is_noticed(change: str) -> None:
    shown = inspected()
    if change == "writable":
        shown["Mounts"][0]["RW"] = True
    elif change == "other source":
        shown["Mounts"][0]["Source"] = "/"
    elif change == "one more":
        shown["Mounts"].append({"Type": "volume", "Source": "/v", "Destination": "/v", "RW": True})
    else:
        shown["Mounts"] = None
    assert "Mounts" in DOCKER.differences(body(), shown)


@pytest.mark.parametrize(
    "name",
    ["User", "Entrypoint", "Cmd", "WorkingDir", "Image", "Hostname", "Domainname", "NetworkDisabled", "Tty", "OpenStdin",
     "Healthcheck", "Volumes", "Labels"],
)  # fmt: skip
def test_another_program_or_user_is_noticed(name: str) -> None:
    shown = inspected()
    shown["Config"][name] = "other"
    assert name in DOCKER.differences(body(), shown)


@pytest.mark.parametrize("more", ["HOSPITAL=umc-a", "LD_PRELOAD=/tmp/x", "USER=root"])
def test_a_variable_that_nobody_asked_for_is_noticed(more: str) -> None:
    shown = inspected()
    shown["Config"]["Env"] = [*shown["Config"]["Env"], more]
    assert "Env" in DOCKER.differences(body(), shown)
    shown["Config"]["Env"] = shown["Config"]["Env"][1:-1]
    assert "Env" in DOCKER.differences(body(), shown)


def test_an_allowed_variable_of_the_image_is_none_too_many() -> None:
    shown = inspected()
    shown["Config"]["Env"] = [*shown["Config"]["Env"], "PATH=/opt/train/bin"]
    assert DOCKER.differences(body(), shown) == ()


def test_an_answer_without_its_parts_differs() -> None:
    assert DOCKER.differences(body(), {})


FIT = {
    "OSType": "linux",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"],
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "CgroupVersion": "1",
    "Runtimes": {"runc": {}},
    "DriverStatus": [["Backing Filesystem", "extfs"]],
}


def test_a_fit_engine_has_no_reason_against_it() -> None:
    assert DOCKER.unfit(FIT, None) == ()
    for own in ("builtin", "unconfined", "/etc/docker/own.json"):
        options = [f"name=seccomp,profile={own}", "name=cgroupns"]
        assert DOCKER.unfit(FIT | {"SecurityOptions": options}, None) == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"OSType": "windows"}, "not-linux"),
        ({"SecurityOptions": ["name=apparmor"]}, "no-seccomp"),
        ({"SecurityOptions": None}, "no-seccomp"),
        (
            {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]},
            "rootless-docker",
        ),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, "user-namespace-remapping"),
        ({"MemoryLimit": False}, "no-memory-limit"),
        ({"SwapLimit": False}, "no-swap-limit"),
        ({"PidsLimit": False}, "no-pids-limit"),
        ({"CpuCfsQuota": False}, "no-cpu-quota"),
        ({"Runtimes": {"crun": {}}}, "no-runc"),
    ],
)
def test_an_engine_that_cannot_enforce_is_named(change: dict[str, Any], reason: str) -> None:
    assert DOCKER.unfit(FIT | change, None) == (reason,)


def test_the_id_is_known_before_for_both_kinds_of_image_store() -> None:
    made = rewrite({"os": "linux", "architecture": "amd64"}, ("sha256:" + "c" * 64,), (10,))
    containerd = FIT | {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert DOCKER.image_id(made, FIT) == made.config_digest
    assert DOCKER.image_id(made, containerd) == made.manifest_digest
    assert DOCKER.may_skip_layers(FIT)
    assert not DOCKER.may_skip_layers(containerd)


def test_an_engine_that_says_nothing_is_unfit() -> None:
    assert set(DOCKER.unfit({}, None)) >= {
        "not-linux",
        "no-memory-limit",
        "no-pids-limit",
        "no-seccomp",
    }


def test_newer_engines_spell_the_quota_otherwise() -> None:
    newer: dict[str, Any] = {name: value for name, value in FIT.items() if name != "CpuCfsQuota"}
    assert DOCKER.unfit(newer | {"CPUCfsQuota": True}, None) == ()
    assert DOCKER.unfit(newer, None) == ("no-cpu-quota",)
