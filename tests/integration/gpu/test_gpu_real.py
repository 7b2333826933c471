"""Discovery, leases and scrubbing on a real GPU: `make gpu-check` on a machine that has one and nobody on it."""

from collections.abc import Iterator

import pytest
from gpu_kit import end, finds, settled, start_train

from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import EVERY, GpuNeed, GpuTerms
from station.sandbox.gpu.nvml import discover

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]
SECRET = "PATIENT 0042 "
SIZE = 256 << 20


@pytest.fixture
def leases() -> Iterator[Leases]:
    yield Leases(GpuTerms(devices=(EVERY,)))
    settled()


def test_the_driver_names_its_devices() -> None:
    found = discover()
    assert found.driver
    assert not found.problem
    for device in found.devices:
        assert device.memory_mib > 1000
        assert device.free_mib <= device.memory_mib
        assert not device.problem, device


def test_a_device_is_scrubbed_and_leased_once(leases: Leases) -> None:
    gpu = leases.take("run-1", GpuNeed(memory_mib=1000), {})
    shown = {each.uuid: each.state for each in leases.report({}).devices}
    assert shown[gpu.uuid] == "leased"
    leases.give_back("run-1")
    settled()
    assert {each.uuid: each.state for each in leases.report({}).devices}[gpu.uuid] == "free"


def test_the_next_train_finds_zeros(leases: Leases) -> None:
    for _ in range(2):
        train = start_train(leases.take("run-1", GpuNeed(), {}).uuid, SIZE, SECRET)
        assert SECRET.encode() not in finds(train, SIZE)
        end(train)
        leases.give_back("run-1")


def test_a_process_of_others_keeps_a_device_out(leases: Leases) -> None:
    gpu = leases.take("run-1", GpuNeed(), {})
    leases.give_back("run-1")
    settled()
    train = start_train(gpu.uuid, SIZE, SECRET)
    finds(train, SIZE)
    try:
        shown = {each.uuid: each.state for each in leases.report({}).devices}
        assert shown[gpu.uuid] == "in-use-by-others"
    finally:
        end(train)
