"""A real engine that has no NVIDIA runtime, a machine that has a GPU: refused by name, or run without one where that may be."""

import pytest
from gpu_kit import SMALL, FakeGpus
from sandbox_kit import Station

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import GpuNeed, GpuTerms
from station.sandbox.launcher.core import LauncherCore
from station.sandbox.session import TrainSandbox

pytestmark = pytest.mark.docker
SEEN = """
import os
found = {
    "told": {name: value for name, value in os.environ.items() if "NVIDIA" in name or "CUDA" in name},
    "nodes": sorted(name for name in os.listdir("/dev") if "nvidia" in name),
}
"""


@pytest.fixture
def launcher(station: Station, gpus: FakeGpus) -> LauncherCore:
    gpus.device(SMALL, 8)
    return LauncherCore(station.home, station.settings, Leases(GpuTerms(devices=(SMALL,))))


def test_an_engine_that_can_hand_out_no_gpu_is_refused_by_name(
    station: Station, launcher: LauncherCore
) -> None:
    spec = station.spec(gpu=GpuNeed())
    (station.home / "compute" / "control" / spec.run_id).mkdir(parents=True)
    with pytest.raises(RefusedError, match="no NVIDIA runtime") as caught:
        launcher.start(spec)
    assert caught.value.code == RefusalCode.ENGINE_UNFIT
    assert launcher.status(spec.run_id).state == "absent"
    report = launcher.gpus()
    assert "no NVIDIA runtime" in report.problem
    assert report.devices[0].state in {"free", "scrubbing"}


def test_a_train_that_may_do_without_runs_without(station: Station, launcher: LauncherCore) -> None:
    session = TrainSandbox(launcher, start_timeout_s=120).start(station.spec(gpu=GpuNeed(required=False)))
    try:
        assert not session.has_gpu
        assert station.find(session, SEEN) == {"told": {"NVIDIA_VISIBLE_DEVICES": "void"}, "nodes": []}
    finally:
        session.stop()
