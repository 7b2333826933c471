"""What a driver says of its devices, through NVIDIA's own package and a library that is really loaded."""

from pathlib import Path

import pytest
from gpu_kit import CUT, LARGE, SLICES, SMALL, FakeGpus

from station.sandbox.gpu.model import Discovery
from station.sandbox.gpu.nvml import Nvml, discover


def test_no_driver_is_no_gpu_and_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path_factory.mktemp("empty")))
    found = discover()
    # Where these tests run beside a real driver, that one is found.
    assert found == Discovery() or found.driver


def test_a_driver_without_a_device(gpus: FakeGpus) -> None:
    assert discover() == Discovery(driver="570.86.15")


def test_devices_with_what_is_on_them(gpus: FakeGpus) -> None:
    gpus.device(LARGE, 64)
    gpus.device(SMALL, 16, minor=1)
    gpus.process(LARGE, 4321)
    gpus.process(SMALL, 99, "g")
    found = discover()
    assert not found.problem
    large, small = found.devices
    assert (large.uuid, large.minor, large.memory_mib, large.free_mib) == (LARGE, 0, 64, 64)
    assert (large.processes, small.processes) == ((4321,), (99,))
    assert not large.problem


def test_a_card_that_knows_no_slices(gpus: FakeGpus) -> None:
    gpus.device(LARGE, 64)
    gpus.fault("no-mig")
    (found,) = discover().devices
    assert (found.uuid, found.parent, found.problem) == (LARGE, None, "")


def test_slices_stand_for_the_gpu_that_they_cut(gpus: FakeGpus) -> None:
    gpus.device(CUT, 64, minor=3, mig=1)
    gpus.slice(SLICES[0], CUT, 8, 1)
    gpus.slice(SLICES[1], CUT, 16, 2)
    found = discover().devices
    assert [(each.uuid, each.parent, each.minor, each.instance, each.memory_mib) for each in found] == [
        (SLICES[0], CUT, 3, 1, 8),
        (SLICES[1], CUT, 3, 2, 16),
    ]


def test_slices_that_share_their_memory_are_no_ones(gpus: FakeGpus) -> None:
    gpus.device(CUT, 64, mig=1)
    gpus.slice(SLICES[0], CUT, 8, 1)
    gpus.slice(SLICES[1], CUT, 8, 1)
    gpus.slice(SLICES[2], CUT, 8, 2)
    problems = [each.problem for each in discover().devices]
    assert problems == ["it shares its memory with another slice"] * 2 + [""]


def test_a_gpu_that_is_about_to_be_cut_is_no_ones(gpus: FakeGpus) -> None:
    gpus.device(CUT, 64, mig=0, pending=1)
    (found,) = discover().devices
    assert found.problem == "its MIG mode is about to change"


@pytest.mark.parametrize(
    ("fault", "number", "said"),
    [
        ("nvml", 18, "does not start: LibRmVersionMismatch (18)"),
        ("nvml", 9, "does not start: DriverNotLoaded (9)"),
        ("handle", 15, "does not answer: GpuIsLost (15)"),
        ("nvml-dies", 1, "made our process end with -9"),
    ],
)
def test_a_broken_driver_is_no_gpu_and_says_why(gpus: FakeGpus, fault: str, number: int, said: str) -> None:
    gpus.device(LARGE, 64)
    gpus.fault(fault, number)
    found = discover()
    assert not found.devices
    assert said in found.problem
    gpus.mend(fault)
    assert discover().devices


def test_a_driver_that_hangs_takes_nothing_with_it(gpus: FakeGpus) -> None:
    gpus.device(LARGE, 64)
    gpus.fault("nvml-hangs")
    assert discover(timeout_s=1) == Discovery(problem="the driver did not answer in 1 s")
    # What hung is gone, and reaped.
    children = [
        each for task in Path("/proc/self/task").iterdir() for each in (task / "children").read_text().split()
    ]
    assert not [each for each in children if b"sandbox.gpu" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_a_driver_that_hung_is_left_alone_for_a_while(gpus: FakeGpus) -> None:
    gpus.device(LARGE, 64)
    gpus.fault("nvml-hangs")
    now = [0.0]
    driver = Nvml(timeout_s=1, clock=lambda: now[0])
    assert driver().problem
    gpus.mend("nvml-hangs")
    now[0] = 119
    assert driver().problem
    now[0] = 120
    assert driver().devices == Nvml()().devices != ()


def test_processes_that_cannot_be_listed_keep_a_device_from_all(gpus: FakeGpus) -> None:
    gpus.device(LARGE, 64)
    gpus.fault("processes", 4)
    (found,) = discover().devices
    assert found.problem == "its processes cannot be listed: NoPermission (4)"


def test_a_device_that_is_shown_twice_is_a_fault(gpus: FakeGpus) -> None:
    gpus.device(LARGE, 64)
    gpus.say("twice", gpus.lines[LARGE])
    assert discover() == Discovery(driver="570.86.15", problem="the driver shows one device twice")


def test_a_name_that_is_none_is_a_fault(gpus: FakeGpus) -> None:
    gpus.device("MIG-GPU-1.3.0", 64)
    assert "makes no sense" in discover().problem
