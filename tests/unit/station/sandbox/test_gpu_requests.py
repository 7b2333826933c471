"""What an engine is asked for a lease, what a train may then see of the host, and which containers hold which device."""

from pathlib import Path
from typing import Any

import pytest
from gpu_kit import CUT, LARGE, SLICES, SMALL, FakeGpus, settled

from policies.errors import RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox.engine import hardening
from station.sandbox.engine.api import NoDeviceDriverError
from station.sandbox.engine.dialect import Terms
from station.sandbox.gpu import devices
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import Device, GpuNeed, GpuTerms, LeasedGpu
from station.sandbox.launcher.gpus import GpuDesk
from station.sandbox.spec import MIB, ContainerSpec

GPU = LeasedGpu(
    uuid=LARGE,
    name="A",
    memory_mib=24_576,
    nodes=("/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
)


def spec(run: str = "run-1", need: GpuNeed | None = None) -> ContainerSpec:
    return ContainerSpec(
        run_id=run, image_config_digest="sha256:" + "a" * 64, cohort_dir="/home/c", control_dir="/home/k",
        memory_bytes=64 * MIB, cpus=1.0, wall_clock_s=60, gpu=need,
    )  # fmt: skip


def body(gpu: LeasedGpu | None) -> dict[str, Any]:
    made: dict[str, Any] = hardening.create_body(
        spec(), Terms("sha256:" + "b" * 64, 1_900_000_001, {}, gpu=gpu)
    )
    return made


def test_exactly_the_leased_device_is_asked_for() -> None:
    asked = body(GPU)
    assert asked["HostConfig"]["DeviceRequests"] == [
        {
            "Driver": "nvidia",
            "Count": 0,
            "DeviceIDs": [LARGE],
            "Capabilities": [["gpu", "compute", "utility"]],
            "Options": {},
        }
    ]
    assert f"NVIDIA_VISIBLE_DEVICES={LARGE}" in asked["Env"]
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in asked["Env"]


def test_a_lease_changes_nothing_else() -> None:
    with_gpu, without = body(GPU), body(None)
    assert with_gpu["HostConfig"].pop("DeviceRequests") != without["HostConfig"].pop("DeviceRequests")
    assert {each for each in with_gpu.pop("Env") if "NVIDIA" not in each} == {
        each for each in without.pop("Env") if "NVIDIA" not in each
    }
    assert with_gpu == without


def test_who_has_no_lease_is_told_to_see_none() -> None:
    asked = body(None)
    assert asked["HostConfig"]["DeviceRequests"] == []
    assert [each for each in asked["Env"] if "NVIDIA" in each or "CUDA" in each] == [
        "NVIDIA_VISIBLE_DEVICES=void"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/dev/nvidia3",
        "/dev/nvidiactl",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.570.86.15",
        "/usr/lib64/libnvidia-ml.so.1",
        "/usr/lib/libnvidia-ptxjitcompiler.so.570.86.15",
        "/usr/bin/nvidia-smi",
        "/proc/driver/nvidia/gpus/0000:65:00.0",
        "/run/nvidia-persistenced/socket",
    ],
)  # fmt: skip
def test_what_the_runtime_brings_along_is_an_exception_with_a_lease_only(path: str) -> None:
    assert devices.is_driver_mount(path, GPU)
    assert not devices.is_driver_mount(path, None)


@pytest.mark.parametrize(
    "path",
    [
        "/dev/nvidia2",
        "/dev/nvidia-caps/nvidia-cap1",
        "/dev/sda",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1/../../../etc/shadow",
        "/usr/bin/bash",
        "/run/docker.sock",
        "/run/nvidia-persistenced/socket/x",
        "/proc/driver",
        "/",
    ],
)
def test_nothing_else_is(path: str) -> None:
    assert not devices.is_driver_mount(path, GPU)
    assert not devices.is_driver_node(path, GPU)


def test_a_slice_has_its_own_nodes(tmp_path: Path) -> None:
    folder = tmp_path / "driver/nvidia/capabilities/gpu3/mig/gi2"
    for name, minor in (("access", 12), ("ci0/access", 13)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\n")
    device = Device(uuid=SLICES[0], name="A", minor=3, memory_mib=8, free_mib=8, parent=CUT, instance=2)
    leased = devices.leased(device, proc=tmp_path)
    assert leased.nodes == (
        "/dev/nvidia3", *devices.SHARED_NODES, "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13",
    )  # fmt: skip
    assert all(devices.is_any_driver_node(node) for node in leased.nodes)


def test_an_operator_reads_every_exception() -> None:
    words = " ".join(devices.exceptions())
    for said in ("/dev/nvidiactl", "libraries", "programs", "sockets"):
        assert said in words


# The launcher's half


def container(run: str, uuid: str = "", state: str = "running") -> dict[str, Any]:
    labels = {hardening.LABEL_RUN: run} | ({hardening.LABEL_GPU: uuid} if uuid else {})
    return {"Id": run, "State": state, "Labels": labels}


@pytest.fixture
def desk(gpus: FakeGpus) -> GpuDesk:
    gpus.device(SMALL, 8)
    return GpuDesk(Leases(GpuTerms(devices=("all",))), None)


def uuid_of(leased: LeasedGpu | None) -> str:
    return "" if leased is None else leased.uuid


def test_a_launcher_that_starts_again_sees_its_leases_in_the_labels(desk: GpuDesk) -> None:
    held = [container("run-1", SMALL), container("run-0")]
    with pytest.raises(RefusedError) as caught:
        desk.lease(spec("run-2", GpuNeed()), "docker", held)
    assert caught.value.code == RefusalCode.RESOURCES_BUSY
    (shown,) = desk.report("docker", held).devices
    assert (shown.state, shown.run_id) == ("leased", "run-1")
    assert desk.lease(spec("run-2", GpuNeed(required=False)), "docker", held) is None


def test_a_container_that_ended_by_itself_has_given_back(desk: GpuDesk) -> None:
    assert uuid_of(desk.lease(spec("run-1", GpuNeed()), "docker", [])) == SMALL
    ended = [container("run-1", SMALL, "exited")]
    assert uuid_of(desk.lease(spec("run-2", GpuNeed()), "docker", ended)) == SMALL


def test_what_an_orphan_left_is_overwritten(gpus: FakeGpus, desk: GpuDesk) -> None:
    (gpus.folder / f"{SMALL}.memory").write_bytes(b"LEFT" * (2 << 20))
    desk.orphaned([container("run-1", SMALL), container("run-2")])
    settled()
    assert gpus.memory(SMALL) == bytes(8 << 20)
    (shown,) = desk.report("docker", []).devices
    assert shown.state == "free"


@pytest.mark.parametrize(
    ("engine", "runtime", "said"),
    [("podman", None, "no GPU is leased under podman"), ("docker", "runsc", "no GPU is leased under runsc")],
)
def test_engines_that_give_no_gpu_are_refused_by_name(
    gpus: FakeGpus, engine: str, runtime: str | None, said: str
) -> None:
    gpus.device(SMALL, 8)
    desk = GpuDesk(Leases(GpuTerms(devices=("all",))), runtime)
    with pytest.raises(RefusedError, match=said):
        desk.lease(spec(need=GpuNeed()), engine, [])
    assert desk.lease(spec(need=GpuNeed(required=False)), engine, []) is None
    report = desk.report(engine, [])
    assert said in report.problem
    assert report.leasable_mib == ()


def test_an_engine_without_the_nvidia_runtime_is_not_asked_twice(desk: GpuDesk) -> None:
    error = NoDeviceDriverError(RefusalCode.ENGINE_UNFIT, "the container engine has no NVIDIA runtime")
    assert not desk.may_do_without(spec(need=GpuNeed()), error)
    assert desk.may_do_without(spec(need=GpuNeed(required=False)), error)
    with pytest.raises(RefusedError, match="no NVIDIA runtime"):
        desk.lease(spec(need=GpuNeed()), "docker", [])
    assert desk.report("docker", []).leasable_mib == ()


def test_what_comes_in_with_a_device_is_no_reason_to_fail_without(desk: GpuDesk) -> None:
    error = RefusedError(RefusalCode.ENGINE_UNFIT, "the kernel shows another container than was asked for")
    assert desk.may_do_without(spec(need=GpuNeed(required=False)), error)
    assert not desk.may_do_without(spec(need=GpuNeed()), error)
    # The next lease is asked of the engine again.
    assert desk.lease(spec("run-2", GpuNeed()), "docker", []) is not None


def test_another_failure_is_no_reason_to_do_without(desk: GpuDesk) -> None:
    for other in (
        RefusedError(RefusalCode.RESOURCES_BUSY, "no room"),
        UnavailableError("no container engine answers"),
    ):
        assert not desk.may_do_without(spec(need=GpuNeed(required=False)), other)
