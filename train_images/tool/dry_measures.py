"""What a dry run took beside what the manifest asks for, and what of it is worth saying. Pure.

Measured on this machine, on made-up images that are smaller than a hospital's unless larger ones were asked for: a remark that something
is far too much says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final, Literal, Protocol

from policies.manifest import Interface, TrainManifest
from train_images.tool.measuring import TrainUse

_MIB: Final = 1 << 20
_NEARLY: Final = 0.9
_HALF: Final = 0.5
_FAR_TOO_MUCH: Final = 0.25
_LEAST_MEMORY_MIB: Final = 512
"""Below this nobody gains from asking for less."""

_LEAST_BUSY_S: Final = 2.0
"""In less time a processor's share says nothing."""

_SLOW_START_S: Final = 60.0
_REAL_PIXELS: Final = {2: 2000 * 2000, 3: 512 * 512 * 200}
"""About how many pixels a hospital's radiograph has, and voxels its chest CT: what a made-up image is compared with."""

_FEW_PATIENTS: Final = 500
_MANY_PATIENTS: Final = 20_000
"""More than these no hospital has in one collection; how many more is of no interest."""

Unit = Literal["MiB", "s", "processors"]


class Took(Protocol):
    """A message that was answered, as far as it matters here."""

    @property
    def stage(self) -> str:
        """What was asked."""
        ...

    @property
    def seconds(self) -> float:
        """From asking to the whole answer; 0 where there was none."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen while a train ran.

    Attributes:
        start_s: from asking for the container until it said hello; None for a map train, which has a container per patient.
        use: of its containers; None where none ran.
        patients: in the cohort, by split.
        shape: of an image, in pixels or voxels; empty where there was none.
    """

    start_s: float | None
    use: TrainUse | None
    patients: Mapping[str, int]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that was measured.

    Attributes:
        what: in words.
        measured: how much.
        asked: how much the manifest asks for; None where it says nothing of it.
        unit: of both.
        remark: what follows, or nothing.
    """

    what: str
    measured: float
    asked: float | None
    unit: Unit
    remark: str = ""


def measures(manifest: TrainManifest, messages: tuple[Took, ...], seen: Measured) -> tuple[Measure, ...]:
    """Return what was measured, in the order in which it is shown."""
    return tuple(_measures(manifest, messages, seen))


def _measures(manifest: TrainManifest, messages: tuple[Took, ...], seen: Measured) -> Iterator[Measure]:
    resources = manifest.resources
    answered = [message for message in messages if message.seconds > 0]
    if seen.use is not None and seen.use.peak_memory_bytes is not None:
        yield _memory(seen.use.peak_memory_bytes / _MIB, resources.memory_mib, seen.shape)
    if seen.use is not None and seen.use.processor_s is not None:
        spent = seen.use.alive_s
        if seen.start_s is not None:
            # A warm container waits between messages; what it does not do then says nothing.
            spent = min(spent, seen.start_s + sum(message.seconds for message in answered))
        if spent >= _LEAST_BUSY_S:
            yield _processors(seen.use.processor_s / spent, resources.cpus)
    if seen.start_s is not None:
        slow = "slow: what the train imports is read at each start" if seen.start_s > _SLOW_START_S else ""
        yield Measure("start", round(seen.start_s, 2), None, "s", slow)
    for stage in dict.fromkeys(message.stage for message in answered):
        longest = max(message.seconds for message in answered if message.stage == stage)
        yield _message(stage, longest, resources.message_timeout_s, _asked(stage, seen.patients))
    rows = manifest.outputs.rows
    if manifest.interface is Interface.MAP and rows is not None and seen.use is not None:
        late = "nearly too little" if seen.use.longest_s > _HALF * rows.patient_timeout_s else ""
        yield Measure(
            "longest patient", round(seen.use.longest_s, 2), float(rows.patient_timeout_s), "s", late
        )


def _memory(peak_mib: float, asked_mib: int, shape: tuple[int, ...]) -> Measure:
    remark = ""
    if peak_mib > _NEARLY * asked_mib:
        remark = "nearly too little: beyond it the train is killed (cached files give way first)"
    elif peak_mib < _FAR_TOO_MUCH * asked_mib and asked_mib > _LEAST_MEMORY_MIB:
        remark = "far more than was used" + _of_small_images(shape)
    return Measure("memory, at most", round(peak_mib, 1), float(asked_mib), "MiB", remark)


def _processors(used: float, asked: float) -> Measure:
    remark = ""
    if used < _FAR_TOO_MUCH * asked and asked > 1:
        remark = "far more than was used"
    return Measure("processors, on average", round(used, 2), asked, "processors", remark)


def _message(stage: str, seconds: float, timeout_s: int, patients: int) -> Measure:
    """Say how long a message took, and for how many patients its time lasts, if it grows as they do."""
    lasts = int(timeout_s / seconds * patients)
    remark = f"enough for about {_about(lasts)} such patients" if 0 < lasts < _MANY_PATIENTS else ""
    if seconds > _HALF * timeout_s or 0 < lasts < _FEW_PATIENTS:
        remark = f"nearly too little: {remark}".removesuffix(": ")
    return Measure(f"message {stage}", round(seconds, 2), float(timeout_s), "s", remark)


def _asked(stage: str, patients: Mapping[str, int]) -> int:
    """Return how many patients a message is about."""
    named = {"train": "training", "evaluate": "validation"}.get(stage, "")
    return patients[named] if named in patients else sum(patients.values())


def _about(count: int) -> str:
    """Return a number to two digits: more would say more than was measured."""
    digits = max(0, len(str(count)) - 2)
    return f"{count // 10**digits * 10**digits:,}"


def _of_small_images(shape: tuple[int, ...]) -> str:
    if not shape or prod(shape) >= _REAL_PIXELS[len(shape)] / 2:
        return ""
    options = "--pixels" if len(shape) == 2 else "--pixels and --slices"
    return f"; a hospital's images are larger: try {options}"
