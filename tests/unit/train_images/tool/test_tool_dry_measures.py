"""What a dry run says of the time and memory that a train took, beside what it asks for."""

from dataclasses import dataclass

import pytest
from tool_kit import MANIFEST

from policies.documents import load_yaml
from policies.manifest import TrainManifest
from train_images.tool.dry_measures import Measure, Measured, measures
from train_images.tool.measuring import ContainerUse, TrainUse, together

MIB = 1 << 20


@dataclass(frozen=True)
class Said:
    stage: str
    seconds: float


def manifest(resources: str = "{memory_mib: 2048, cpus: 4, message_timeout_s: 600}") -> TrainManifest:
    text = MANIFEST.replace("{memory_mib: 256, cpus: 1}", resources)
    return load_yaml(TrainManifest, text.encode(), what="train.yaml")


def found(
    train: TrainManifest,
    *messages: Said,
    memory_mib: float | None = 1000,
    processor_s: float | None = 20.0,
    shape: tuple[int, ...] = (256, 256),
    start_s: float | None = 4.0,
) -> dict[str, Measure]:
    peak = None if memory_mib is None else int(memory_mib * MIB)
    use = TrainUse(1, peak, processor_s, 400.0, 400.0)
    seen = Measured(start_s, use, {"training": 30, "validation": 10}, shape)
    return {each.what: each for each in measures(train, messages, seen)}


def test_a_train_that_asks_for_what_it_needs_hears_no_complaint() -> None:
    said = found(manifest(), Said("train", 6.0), Said("evaluate", 1.0), processor_s=20.0)
    assert {name: each.remark for name, each in said.items() if each.remark} == {
        "message train": "enough for about 3,000 such patients",
        "message evaluate": "enough for about 6,000 such patients",
    }
    assert (said["memory, at most"].measured, said["memory, at most"].asked) == (1000, 2048)
    # The eleven seconds in which it was busy, not the four hundred in which it was there.
    assert said["processors, on average"].measured == pytest.approx(20 / 11, abs=0.01)
    assert (said["start"].measured, said["start"].asked) == (4.0, None)


@pytest.mark.parametrize(
    ("memory_mib", "shape", "words"),
    [
        (1900, (256, 256), "nearly too little"),
        (100, (256, 256), "try --pixels"),
        (100, (64, 64, 24), "try --pixels and --slices"),
        (100, (2048, 2048), "far more than was used"),
    ],
)
def test_memory_that_does_not_fit_is_said(memory_mib: float, shape: tuple[int, ...], words: str) -> None:
    remark = found(manifest(), Said("train", 6.0), memory_mib=memory_mib, shape=shape)[
        "memory, at most"
    ].remark
    assert words in remark
    assert ("--pixels" in remark) == ("--pixels" in words)


def test_little_memory_is_never_too_much() -> None:
    train = manifest("{memory_mib: 256, cpus: 1}")
    assert found(train, Said("train", 1.0), memory_mib=20)["memory, at most"].remark == ""


def test_processors_that_idle_are_said() -> None:
    said = found(manifest(), Said("train", 16.0), processor_s=10.0)
    assert said["processors, on average"].measured == 0.5
    assert "far more than was used" in said["processors, on average"].remark


def test_time_that_will_not_last_is_said() -> None:
    train = manifest("{memory_mib: 2048, cpus: 1, message_timeout_s: 60}")
    said = found(train, Said("train", 40.0), Said("train", 5.0), Said("evaluate", 0.01))
    assert said["message train"] == Measure(
        "message train", 40.0, 60.0, "s", "nearly too little: enough for about 45 such patients"
    )
    # Sixty thousand: nobody asks.
    assert said["message evaluate"].remark == ""


def test_what_this_machine_does_not_show_is_not_said() -> None:
    said = found(manifest(), Said("train", 6.0), Said("evaluate", 0.0), memory_mib=None, processor_s=None)
    assert list(said) == ["start", "message train"]


def test_containers_of_many_patients_are_told_together() -> None:
    uses = [ContainerUse(50 * MIB, 1.0, 2.0), ContainerUse(70 * MIB, 2.0, 5.0)]
    assert together(uses) == TrainUse(2, 70 * MIB, 3.0, 7.0, 5.0)
    # Of one that was gone before anybody looked nothing is known, and so nothing of the sum.
    assert together([*uses, ContainerUse(None, None, 1.0)]) == TrainUse(3, 70 * MIB, None, 8.0, 5.0)
    assert together([]) is None
