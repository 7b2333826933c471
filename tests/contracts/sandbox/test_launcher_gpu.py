"""A lease under every engine: Docker with NVIDIA's hook hands out exactly the leased device; each other one is refused by name."""

from typing import Any

import pytest
from engine_kit import Engine
from gpu_kit import SMALL, FakeGpus, settled
from sandbox_kit import Station

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine.api import Engine as Api
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import GpuNeed, GpuTerms
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.session import TrainSandbox

pytestmark = pytest.mark.docker
REFUSED = {
    "docker": (RefusalCode.ENGINE_UNFIT, "no NVIDIA runtime"),
    "docker-gvisor": (RefusalCode.HOSPITAL_RESOURCES, "no GPU is leased under runsc"),
    "podman": (RefusalCode.HOSPITAL_RESOURCES, "no GPU is leased under podman"),
}
SEEN = """
import os
found = sorted(f"{name}={value}" for name, value in os.environ.items() if "NVIDIA" in name or "CUDA" in name)
"""


@pytest.fixture
def launcher(station: Station, gpus: FakeGpus) -> LauncherCore:
    gpus.device(SMALL, 8)
    return LauncherCore(station.home, station.settings, Leases(GpuTerms(devices=(SMALL,))))


def test_a_train_gets_its_device_or_the_engine_is_refused_by_name(
    station: Station, engine: Engine, launcher: LauncherCore, gpus: FakeGpus
) -> None:
    sandbox = TrainSandbox(launcher, start_timeout_s=120)
    if engine.name != "docker-containerd":
        code, said = REFUSED["docker-gvisor" if engine.runtime == "runsc" else launcher.engine_info().kind]
        with pytest.raises(RefusedError, match=said) as caught:
            sandbox.start(station.spec(gpu=GpuNeed()))
        assert caught.value.code == code
        assert said in launcher.gpus().problem
        return
    session = sandbox.start(station.spec(gpu=GpuNeed()))
    try:
        assert session.has_gpu
        asked: Any = Api(engine.socket).container(f"{launcher._name(session.run_id)}")
        (request,) = asked["HostConfig"]["DeviceRequests"]
        assert (request["DeviceIDs"], request["Count"]) == ([SMALL], 0)
        assert station.find(session, SEEN) == [
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            f"NVIDIA_VISIBLE_DEVICES={SMALL}",
        ]
        # Also a launcher that knows of it by its label alone.
        again = LauncherCore(station.home, station.settings, Leases(GpuTerms(devices=(SMALL,))))
        for each in (launcher, again):
            (shown,) = each.gpus().devices
            assert (shown.state, shown.run_id) == ("leased", session.run_id)
            with pytest.raises(RefusedError) as caught:
                each.start(session._spec.model_copy(update={"run_id": "another-run"}))
            assert caught.value.code == RefusalCode.RESOURCES_BUSY
        (gpus.folder / f"{SMALL}.memory").write_bytes(b"LEFT" * (2 << 20))
    finally:
        session.stop()
    settled()
    assert launcher.gpus().devices[0].state == "free"
    assert gpus.memory(SMALL) == bytes(8 << 20)
