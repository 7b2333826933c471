"""Leases over a driver that is really loaded: one train a device, none that others are on, clean before and after."""

import threading

import pytest
from gpu_kit import CUT, LARGE, SLICES, SMALL, FakeGpus, end, finds, settled

from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.gpu.leases import Leases
from station.sandbox.gpu.model import EVERY, GpuNeed, GpuTerms
from station.sandbox.gpu.scrubbing import await_gone, scrub

ANY = GpuNeed()
SECRET = "LEFT BY THE ONE BEFORE "


@pytest.fixture
def machine(gpus: FakeGpus) -> FakeGpus:
    gpus.device(LARGE, 24)
    gpus.device(SMALL, 8, minor=1)
    return gpus


@pytest.fixture
def leases(machine: FakeGpus) -> Leases:
    return Leases(GpuTerms(devices=(EVERY,)))


def refused(
    leases: Leases, run: str, need: GpuNeed = ANY, holders: dict[str, str] | None = None
) -> tuple[str, str]:
    with pytest.raises(RefusedError) as caught:
        leases.take(run, need, holders or {})
    return caught.value.code, caught.value.message


def states(leases: Leases, holders: dict[str, str] | None = None) -> dict[str, str]:
    return {each.uuid: each.state for each in leases.report(holders or {}).devices}


def after_scrubbing(leases: Leases) -> dict[str, str]:
    settled()
    return states(leases)


def test_the_smallest_that_is_large_enough_and_each_once(leases: Leases) -> None:
    assert leases.take("run-1", ANY, {}).uuid == SMALL
    assert leases.take("run-2", ANY, {}).uuid == LARGE
    assert states(leases) == {SMALL: "leased", LARGE: "leased"}
    assert refused(leases, "run-3") == (
        RefusalCode.RESOURCES_BUSY,
        "every GPU that is large enough is leased",
    )
    leases.give_back("run-1")
    assert leases.take("run-3", ANY, {}).uuid == SMALL


def test_the_floor_is_kept(leases: Leases) -> None:
    assert leases.take("run-1", GpuNeed(memory_mib=9), {}).uuid == LARGE
    assert refused(leases, "run-2", GpuNeed(memory_mib=9))[0] == RefusalCode.RESOURCES_BUSY
    assert refused(leases, "run-2", GpuNeed(memory_mib=25)) == (
        RefusalCode.HOSPITAL_RESOURCES,
        "no GPU here has 25 MiB",
    )


def test_a_run_has_one_device(leases: Leases) -> None:
    leases.take("run-1", ANY, {})
    assert refused(leases, "run-1")[0] == RefusalCode.SANDBOX_ARGUMENT
    assert states(leases) == {SMALL: "leased", LARGE: "free"}


def test_only_what_the_hospital_offers(machine: FakeGpus) -> None:
    none = Leases(GpuTerms())
    assert refused(none, "run-1") == (RefusalCode.HOSPITAL_RESOURCES, "this station leases no GPU")
    assert set(states(none).values()) == {"not-offered"}
    assert none.report({}).leasable_mib == ()
    one = Leases(GpuTerms(devices=(LARGE,)))
    assert one.take("run-1", ANY, {}).uuid == LARGE
    assert refused(one, "run-2")[0] == RefusalCode.RESOURCES_BUSY
    assert one.report({}).leasable_mib == (24,)


def test_slices_are_offered_with_their_gpu_or_one_by_one(gpus: FakeGpus) -> None:
    gpus.device(CUT, 64, minor=2, mig=1)
    for number, uuid in enumerate(SLICES):
        gpus.slice(uuid, CUT, 8 * (number + 1), number)
    whole = Leases(GpuTerms(devices=(CUT,)))
    assert [whole.take(f"run-{n}", ANY, {}).uuid for n in range(3)] == list(SLICES)
    single = Leases(GpuTerms(devices=(SLICES[1],)))
    assert single.take("run-1", ANY, {}).uuid == SLICES[1]
    assert refused(single, "run-2")[0] == RefusalCode.RESOURCES_BUSY


@pytest.mark.parametrize("kind", ["c", "g"])
def test_nobody_gets_a_device_that_others_are_on(machine: FakeGpus, leases: Leases, kind: str) -> None:
    machine.process(SMALL, 4321, kind)
    assert states(leases) == {SMALL: "in-use-by-others", LARGE: "free"}
    assert leases.take("run-1", ANY, {}).uuid == LARGE
    code, why = refused(leases, "run-2")
    assert (code, f"{SMALL}: others compute on it") == (RefusalCode.RESOURCES_BUSY, why)
    machine.unsay("process 4321")
    assert leases.take("run-2", ANY, {}).uuid == SMALL


def test_a_launcher_that_starts_again_knows_its_leases_by_the_labels(
    machine: FakeGpus, leases: Leases
) -> None:
    leases.take("run-1", ANY, {})
    again = Leases(GpuTerms(devices=(EVERY,)))
    labels = {SMALL: "run-1"}
    assert states(again, labels) == {SMALL: "leased", LARGE: "free"}
    assert again.take("run-2", ANY, labels).uuid == LARGE
    assert refused(again, "run-3", holders=labels)[0] == RefusalCode.RESOURCES_BUSY
    assert refused(again, "run-1", holders=labels)[0] == RefusalCode.SANDBOX_ARGUMENT


def test_memory_is_overwritten_when_a_lease_ends(machine: FakeGpus, leases: Leases) -> None:
    gpu = leases.take("run-1", ANY, {})
    train = machine.train(gpu.uuid, 1 << 20, SECRET)
    finds(train, 1 << 20)
    end(train)
    assert SECRET.encode() in machine.memory(SMALL)
    leases.give_back("run-1")
    assert after_scrubbing(leases)[SMALL] == "free"
    assert machine.memory(SMALL) == bytes(8 << 20)


def test_what_others_left_is_overwritten_before_a_lease(machine: FakeGpus, leases: Leases) -> None:
    """A lease of another program between two of ours is in no book of ours."""
    other = machine.train(SMALL, 1 << 20, SECRET)
    finds(other, 1 << 20)
    end(other)
    leases.take("run-1", ANY, {})
    assert machine.memory(SMALL) == bytes(8 << 20)


def test_scrubbing_waits_until_the_train_is_gone(machine: FakeGpus, leases: Leases) -> None:
    gpu = leases.take("run-1", ANY, {})
    train = machine.train(gpu.uuid, 1 << 20, SECRET)
    finds(train, 1 << 20)
    try:
        leases.give_back("run-1")
        assert SECRET.encode() in machine.memory(SMALL)
        assert states(leases)[SMALL] != "leased"
    finally:
        end(train)
    assert after_scrubbing(leases)[SMALL] == "free"
    assert SECRET.encode() not in machine.memory(SMALL)


@pytest.mark.parametrize(
    ("fault", "number", "said"),
    [
        ("memset-lies", 1, "what was written cannot be read back"),
        ("lost-mib", 3, "3 of 8 MiB could not be reached"),
        ("cuda", 802, "cuInit answers 802"),
        ("all-visible", 1, "2 devices are visible instead of one"),
        ("other-device", 1, "the driver gave another device"),
    ],
)
def test_what_is_no_scrubbing(machine: FakeGpus, fault: str, number: int, said: str) -> None:
    machine.fault(fault, number)
    assert scrub(SMALL) == said


def test_a_device_that_cannot_be_scrubbed_is_leased_to_nobody_until_it_can(machine: FakeGpus) -> None:
    leases = Leases(GpuTerms(devices=(SMALL,)))
    machine.fault("lost-mib", 3)
    code, why = refused(leases, "run-1")
    assert code == RefusalCode.RESOURCES_BUSY
    assert why == f"{SMALL}: its memory could not be scrubbed: 3 of 8 MiB could not be reached"
    report = leases.report({})
    (shown,) = [each for each in report.devices if each.uuid == SMALL]
    assert shown.state == "unclean"
    assert "3 of 8 MiB" in shown.reason
    # It counts as one that may be had: else it would never be tried again.
    assert report.leasable_mib == (8,)
    machine.mend("lost-mib")
    assert leases.take("run-1", ANY, {}).uuid == SMALL


def test_another_device_is_leased_where_one_cannot_be_scrubbed(machine: FakeGpus) -> None:
    leases = Leases(GpuTerms(devices=(EVERY,)), scrubber=lambda uuid: "worn out" if uuid == SMALL else "")
    assert leases.take("run-1", ANY, {}).uuid == LARGE
    assert states(leases) == {SMALL: "unclean", LARGE: "leased"}


def test_a_train_that_does_not_go_keeps_its_device_out(machine: FakeGpus) -> None:
    from station.sandbox.gpu.nvml import discover

    machine.process(SMALL, 77)
    assert await_gone(SMALL, discover, timeout_s=0) == "processes are still on it: 77"
    assert await_gone(LARGE, discover, timeout_s=0) == ""
    assert await_gone(CUT, discover, timeout_s=0) == "the driver shows it no longer"


def test_a_driver_that_hangs_while_it_scrubs(machine: FakeGpus) -> None:
    machine.fault("cuda-hangs")
    assert scrub(SMALL, timeout_s=1) == "the driver did not answer in 1 s"


def test_a_broken_driver_leases_nothing_and_says_why(machine: FakeGpus, leases: Leases) -> None:
    machine.fault("nvml", 18)
    code, why = refused(leases, "run-1")
    assert (code, "LibRmVersionMismatch" in why) == (RefusalCode.HOSPITAL_RESOURCES, True)
    report = leases.report({})
    assert "LibRmVersionMismatch" in report.problem
    assert report.leasable_mib == ()


def test_without_scrubbing_by_the_hospitals_word(machine: FakeGpus) -> None:
    leases = Leases(GpuTerms(devices=(EVERY,), scrub=False))
    other = machine.train(SMALL, 1 << 20, SECRET)
    finds(other, 1 << 20)
    end(other)
    leases.take("run-1", ANY, {})
    assert SECRET.encode() in machine.memory(SMALL)
    (shown,) = [each for each in leases.report({}).devices if each.uuid == LARGE]
    assert shown.reason == "its memory is not scrubbed: [gpu] scrub is off"


def test_two_at_once_never_get_one_device(leases: Leases) -> None:
    got: list[str] = []

    def take(run: str) -> None:
        try:
            got.append(leases.take(run, ANY, {}).uuid)
        except RefusedError:
            got.append("none")

    threads = [threading.Thread(target=take, args=(f"run-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(got) == [LARGE, SMALL, "none", "none"]
