"""A train leaves patients' bytes in a GPU's memory; the next one, which gets the same memory, reads what it finds there."""

import pytest
from gpu_kit import SMALL, FakeGpus, end, finds, settled

from policies.errors import RefusedError
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import GpuNeed, GpuTerms

SECRET = "PATIENT 0042 "
ALL = 4 << 20


def lease(leases: Leases, run: str) -> str:
    return leases.take(run, GpuNeed(), {}).uuid


def one_after_the_other(gpus: FakeGpus, leases: Leases) -> bytes:
    """What the second of two trains finds."""
    first = gpus.train(lease(leases, "run-1"), ALL, SECRET)
    finds(first, ALL)
    end(first)
    leases.give_back("run-1")
    second = gpus.train(lease(leases, "run-2"), ALL)
    found = finds(second, ALL)
    end(second)
    return found


def test_the_next_train_finds_zeros(gpus: FakeGpus) -> None:
    gpus.device(SMALL, 4)
    assert one_after_the_other(gpus, Leases(GpuTerms(devices=(SMALL,)))) == bytes(ALL)


def test_without_scrubbing_it_would_find_the_patient(gpus: FakeGpus) -> None:
    """The attack is a real one: a hospital that turns scrubbing off has this."""
    gpus.device(SMALL, 4)
    found = one_after_the_other(gpus, Leases(GpuTerms(devices=(SMALL,), scrub=False)))
    assert SECRET.encode() in found


def test_where_scrubbing_does_nothing_there_is_no_next_train(gpus: FakeGpus) -> None:
    """A driver that says it overwrote and did not."""
    gpus.device(SMALL, 4)
    leases = Leases(GpuTerms(devices=(SMALL,)))
    train = gpus.train(lease(leases, "run-1"), ALL, SECRET)
    finds(train, ALL)
    end(train)
    gpus.fault("memset-lies")
    leases.give_back("run-1")
    settled()
    assert SECRET.encode() in gpus.memory(SMALL)
    with pytest.raises(RefusedError, match="could not be scrubbed"):
        lease(leases, "run-2")


def test_a_train_that_outlives_its_container_keeps_its_device_from_others(gpus: FakeGpus) -> None:
    """It still reads and writes the memory: nobody may get it, and nobody's bytes are overwritten under it."""
    gpus.device(SMALL, 4)
    leases = Leases(GpuTerms(devices=(SMALL,)))
    lease(leases, "run-1")
    again = Leases(GpuTerms(devices=(SMALL,)))
    train = gpus.train(SMALL, ALL, SECRET)
    finds(train, ALL)
    try:
        with pytest.raises(RefusedError, match="others compute on it"):
            lease(again, "run-2")
        assert SECRET.encode() in gpus.memory(SMALL)
    finally:
        end(train)
