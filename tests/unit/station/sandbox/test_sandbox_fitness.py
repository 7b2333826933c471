"""What an engine is refused for, in words that say what to do; and the label that only the hospital chooses."""

import dataclasses
from pathlib import Path

import pytest
from pydantic import ValidationError

from station.sandbox.engine.dialect import Json, Terms
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.engine.fitness import explained, lacks_host_sockets, without_labels
from station.sandbox.engine.kernel import KernelView, ProcessView, asked_of, label_problems
from station.sandbox.engine.procfs import sees_processes
from station.sandbox.engine.seccomp import PROFILE
from station.sandbox.launcher import core
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.spec import MIB, ContainerSpec, LauncherSettings, SelinuxLabel

UID = 1_900_000_007
LABEL = SelinuxLabel(type="container_t", level="s0:c100,c200")


def body(label: SelinuxLabel) -> Json:
    spec = ContainerSpec(
        run_id="run-1",
        image_config_digest="sha256:" + "a" * 64,
        cohort_dir="/srv/compute/cohorts/run-1",
        control_dir="/srv/compute/control/run-1",
        memory_bytes=512 * MIB,
        cpus=1.0,
        wall_clock_s=60,
    )
    return DockerDialect().create_body(spec, Terms("sha256:" + "b" * 64, UID, {}, selinux=label.options))


def security(label: SelinuxLabel) -> object:
    host = body(label)["HostConfig"]
    assert isinstance(host, dict)
    return host["SecurityOpt"]


def test_a_label_is_asked_for_where_the_hospital_chose_one() -> None:
    assert security(SelinuxLabel()) == ["no-new-privileges:true", f"seccomp={PROFILE}"]
    assert security(LABEL) == [
        "no-new-privileges:true",
        "label:type:container_t",
        "label:level:s0:c100,c200",
        f"seccomp={PROFILE}",
    ]


@pytest.mark.parametrize("value", ["disable", "container_t"])
def test_only_types_and_levels_are_labels(value: str) -> None:
    assert SelinuxLabel(type=value).options == (f"label:type:{value}",)


@pytest.mark.parametrize(
    "given",
    [
        {"type": "a b"},
        {"type": ""},
        {"type": "x:disable"},
        {"level": "s0,disable"},
        {"level": "c1"},
        {"user": "root"},
    ],
)
def test_what_is_no_label_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SelinuxLabel.model_validate(given)


def test_a_label_that_nobody_enforces_is_refused_by_name() -> None:
    assert without_labels("docker", {"SecurityOptions": ["name=seccomp"]}, SelinuxLabel()) == ()
    assert without_labels("docker", {"SecurityOptions": ["name=seccomp"]}, LABEL) == ("no-selinux",)
    assert without_labels("docker", {}, LABEL) == ("no-selinux",)
    assert without_labels("docker", {"SecurityOptions": ["name=selinux"]}, LABEL) == ()
    assert without_labels("podman", {"SecurityOptions": ["name=selinux"]}, LABEL) == (
        "no-selinux-labels-under-podman",
    )
    assert "selinux-enabled" in explained("no-selinux")


def shown(label: str) -> KernelView:
    return KernelView(ProcessView("", ""), "", "", "", "", {}, label=label)


@pytest.mark.parametrize(
    ("label", "held"),
    [
        ("system_u:system_r:container_t:s0:c100,c200", True),
        ("system_u:system_r:container_t:s0:c100,c200\0\n", True),
        ("system_u:system_r:container_t:s0:c1,c200", False),
        ("system_u:system_r:spc_t:s0:c100,c200", False),
        ("unconfined", False),
        ("", False),
    ],
)
def test_the_kernel_shows_the_label(label: str, held: bool) -> None:
    asked = asked_of(body(LABEL), "c" * 64, {})
    assert label_problems(shown(label), asked) == ([] if held else ["another SELinux label"])
    assert label_problems(shown(label), dataclasses.replace(asked, label=SelinuxLabel())) == []


@pytest.mark.parametrize(
    ("runtimes", "lacks"),
    [
        ({"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--host-uds=open"]}}, False),
        ({"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none", "--host-uds=all"]}}, False),
        ({"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--host-uds=none"]}}, True),
        ({"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": None}}, True),
        ({"runsc": {"path": "/usr/bin/runsc"}}, True),
        # A shim with a configuration of its own shows no arguments.
        ({"runsc": {"runtimeType": "io.containerd.runsc.v1"}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_gvisor_must_reach_the_socket(runtimes: object, lacks: bool) -> None:
    assert lacks_host_sockets("runsc", runtimes) is lacks  # type: ignore[arg-type]
    assert not lacks_host_sockets("runc", runtimes)  # type: ignore[arg-type]
    assert "--host-uds=open" in explained("runsc-without-host-uds")


@pytest.mark.parametrize("name", ["runsc", "crun"])
def test_a_runtime_that_the_engine_does_not_have_is_refused_by_name(name: str) -> None:
    info: Json = {"Runtimes": {"runc": {}}}
    assert f"no-{name}" in DockerDialect().unfit(info, name)
    assert name in explained(f"no-{name}")


def test_a_rootless_docker_is_refused_by_name() -> None:
    for version in ("1", "2"):
        info: Json = {
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
            "CgroupVersion": version,
        }
        assert "rootless-docker" in DockerDialect().unfit(info, None)
    assert "rootless Podman" in explained("rootless-docker")


def test_a_launcher_that_sees_no_processes_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = LauncherCore(tmp_path, LauncherSettings(station="blind", compute_uid=0))
    assert "processes-not-visible" not in launcher._describe(DockerDialect(), {}).unfit
    monkeypatch.setattr(core, "sees_processes", lambda: sees_processes(tmp_path))
    assert "processes-not-visible" in launcher._describe(DockerDialect(), {}).unfit
    assert "hidepid" in explained("processes-not-visible")


def test_any_other_reason_is_explained_too() -> None:
    assert "cgroup" in explained("no-memory-limit")
