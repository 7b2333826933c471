"""A container with a lease, on a real GPU and an engine with NVIDIA's runtime: it sees its device, and no other."""

import pytest
from gpu_kit import settled
from sandbox_kit import running_station

from station.sandbox.gpu import devices
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import EVERY, GpuNeed, GpuTerms
from station.sandbox.gpu.nvml import discover
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.session import TrainSandbox

pytestmark = [pytest.mark.gpu, pytest.mark.docker, pytest.mark.timeout(1200)]

IN_THE_CONTAINER = """
import ctypes, os, uuid
cuda = ctypes.CDLL("libcuda.so.1")
count, name = ctypes.c_int(), (ctypes.c_ubyte * 16)()
found = {"init": cuda.cuInit(0)}
cuda.cuDeviceGetCount(ctypes.byref(count))
cuda.cuDeviceGetUuid_v2(name, 0)
found["devices"], found["uuid"] = count.value, str(uuid.UUID(bytes=bytes(name)))
nodes = [os.path.join(folder, each) for folder, _, files in os.walk("/dev") for each in files]
found["nodes"] = sorted(each for each in nodes if "nvidia" in each)
found["mounts"] = [line.split()[4] for line in open("/proc/self/mountinfo") if "nvidia" in line or "libcuda" in line]
"""


def test_a_train_sees_its_device_and_no_other(tmp_path_factory: pytest.TempPathFactory) -> None:
    leases = Leases(GpuTerms(devices=(EVERY,)))
    with running_station(tmp_path_factory.mktemp("station")) as station:
        launcher = LauncherCore(station.home, station.settings, leases)
        session = TrainSandbox(launcher, start_timeout_s=300).start(station.spec(gpu=GpuNeed()))
        try:
            assert session.has_gpu
            (mine,) = [each for each in launcher.gpus().devices if each.run_id == session.run_id]
            found = station.find(session, IN_THE_CONTAINER)
        finally:
            session.stop()
    settled()
    assert isinstance(found, dict)
    assert (found["init"], found["devices"], found["uuid"]) == (0, 1, mine.uuid.partition("-")[2])
    (device,) = [each for each in discover().devices if each.uuid == mine.uuid]
    gpu = devices.leased(device)
    assert set(found["nodes"]) <= set(gpu.nodes)
    assert [each for each in found["mounts"] if not devices.is_driver_mount(each, gpu)] == []
