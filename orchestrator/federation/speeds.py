"""How fast each station answers, as it was measured here, and how long one is waited for by that.

Once enough stations have answered, the rest have a straggler's time. One that is honest and slow would always be cut off by fast ones:
so each has what its own answers took before, with room, where that is longer. A late answer is measured too, though nothing else is
made of it: who was late once has more time at the next question. What a station says of its own speed is not used, and what the
others took bounds what one may make them wait.

Kept over the rounds of a run and over runs of one image: `runs/.speeds/<image hex>.json`, the newest answers of each station and stage.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from policies.documents import parse_json
from policies.errors import DocumentError
from policies.files import exclusive_lock, write_atomically
from policies.wire.instructions import Kind, StationReply

FOLDER: Final = ".speeds"
KEPT: Final = 16
"""So many of a station's answers to one stage: what it was long ago says little."""

_MEDIAN_ROOM: Final = 1.5
_LATEST_ROOM: Final = 1.25
_SPREADS: Final = 4 * 1.4826
"""Four standard deviations, as the median of absolute deviations tells them of a normal distribution."""
_LEAST_ROOM_S: Final = 1.0
_MEDIANS_OF_OTHERS: Final = 4.0
_LEAST_BOUND_S: Final = 60.0
_MAX_BYTES: Final = 4 << 20

Samples = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Late:
    """An answer to a question that was over when it came.

    Attributes:
        station: whose.
        reply: as it came; nothing is made of it.
        taken_s: from when the station was first asked.
        held: by something that is not the station's speed.
    """

    station: str
    reply: StationReply
    taken_s: float
    held: bool


class Speeds(Protocol):
    """What a question knows of stations' speed, and tells of it."""

    def allowed_s(self, station: str) -> float:
        """How long a station has by its own speed, from when it was first asked; 0 where nothing is known."""

    def answered(self, station: str, taken_s: float, *, held: bool) -> None:
        """A station answered in time."""

    def given(self, station: str, given_s: float) -> None:
        """The question is over: how long it waited, or would have waited, for a station."""

    def late(self, late: Late) -> None:
        """An answer came to a question that was over."""


class NoSpeeds:
    """For questions that every station answers at once."""

    def allowed_s(self, station: str) -> float:
        """Nothing is known."""
        del station
        return 0.0

    def answered(self, station: str, taken_s: float, *, held: bool) -> None:
        """Not measured."""

    def given(self, station: str, given_s: float) -> None:
        """Not kept."""

    def late(self, late: Late) -> None:
        """Not measured."""


class OnlyLate(NoSpeeds):
    """For questions that every station answers at once, while answers to others may still come."""

    def __init__(self, book: "SpeedBook", lates: list[Late]) -> None:
        self._book, self._lates = book, lates

    def late(self, late: Late) -> None:
        """See `Speeds.late`."""
        note_late(self._book, self._lates, late)


def note_late(book: "SpeedBook", lates: list[Late], late: Late) -> None:
    """Keep a late answer for the round's record, and what it took."""
    lates.append(late)
    if not late.held and late.reply.kind is not Kind.PREPARE:
        book.note(late.station, late.reply.kind.value, late.taken_s)


def allowed_s(samples: Sequence[float]) -> float:
    """Return how long a station may take, from what its answers took, the newest last; 0 without any.

    By median and median absolute deviation, which a few odd answers do not move, and never less than its latest answer would need.

    >>> allowed_s([10.0, 10.0, 10.0]), allowed_s([10.0, 10.0, 40.0]), allowed_s([])
    (15.0, 50.0, 0.0)
    """
    if not samples:
        return 0.0
    median = statistics.median(samples)
    spread = statistics.median(abs(sample - median) for sample in samples)
    return max(
        _MEDIAN_ROOM * median,
        median + _SPREADS * spread,
        _LATEST_ROOM * samples[-1],
        samples[-1] + _LEAST_ROOM_S,
    )


def longest_allowed_s(others: Sequence[float], grace_s: float) -> float:
    """Return how long any one station may take by its own speed, where the others took so long.

    One that answers just inside its time would have a quarter more each time, up to the deadline of the whole run. So it is
    bounded by what no single station chooses: four medians of the others, the order's own time for stragglers, or a minute.

    >>> longest_allowed_s([30.0, 40.0, 50.0], 120.0), longest_allowed_s([1.0], 0.0), longest_allowed_s([], 120.0)
    (160.0, 60.0, 120.0)
    """
    median = statistics.median(others) if others else 0.0
    return max(_MEDIANS_OF_OTHERS * median, grace_s, _LEAST_BOUND_S)


class SpeedBook:
    """The measured answers of one image's stations; several orders may write it."""

    def __init__(self, runs: Path, image_digest: str) -> None:
        self._path = runs / FOLDER / (image_digest.removeprefix("sha256:") + ".json")
        self._samples = _read(self._path)
        self._new: list[tuple[str, str, float]] = []

    def allowed_s(self, station: str, stage: str) -> float:
        """How long a station has by its own speed; 0 where nothing is known."""
        return allowed_s(self._samples.get(station, {}).get(stage, []))

    def note(self, station: str, stage: str, taken_s: float) -> None:
        """Keep what an answer took; durable with `flush`."""
        _add(self._samples, station, stage, round(taken_s, 3))
        self._new.append((station, stage, round(taken_s, 3)))

    def flush(self) -> None:
        """Write what is new, beside what others have written."""
        if not self._new:
            return
        with exclusive_lock(self._path.parent / ".lock"):
            found = _read(self._path)
            for station, stage, taken_s in self._new:
                _add(found, station, stage, taken_s)
            write_atomically(self._path, json.dumps(found, sort_keys=True).encode())
        self._samples, self._new = found, []


@dataclass(slots=True)
class StageSpeeds:
    """The speeds of one stage of one round; what its record says of them.

    Attributes:
        book: kept over rounds and runs.
        stage: by name.
        quantum_s: at multiples of which stations answer.
        deadlines: station to how long it was given and what it took.
        lates: what came to earlier questions meanwhile.
    """

    book: SpeedBook
    stage: str
    quantum_s: float
    lates: list[Late]
    deadlines: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def allowed_s(self, station: str) -> float:
        """See `Speeds.allowed_s`."""
        allowed = self.book.allowed_s(station, self.stage)
        return allowed + self.quantum_s if allowed else 0.0

    def answered(self, station: str, taken_s: float, *, held: bool) -> None:
        """See `Speeds.answered`."""
        self._line(station)["taken_s"] = round(taken_s, 3)
        if not held:
            self.book.note(station, self.stage, taken_s)

    def given(self, station: str, given_s: float) -> None:
        """See `Speeds.given`."""
        self._line(station)["given_s"] = round(given_s, 3)

    def late(self, late: Late) -> None:
        """See `Speeds.late`."""
        note_late(self.book, self.lates, late)

    def _line(self, station: str) -> dict[str, float | None]:
        return self.deadlines.setdefault(station, {"given_s": None, "taken_s": None})


def _add(samples: Samples, station: str, stage: str, taken_s: float) -> None:
    kept = samples.setdefault(station, {}).setdefault(stage, [])
    kept.append(taken_s)
    del kept[:-KEPT]


def _read(path: Path) -> Samples:
    """What is kept; nothing where there is nothing or it is damaged: a guess less, and no wrong one."""
    try:
        kept = parse_json(path.read_bytes(), what=path.name, max_bytes=_MAX_BYTES)
    except (OSError, DocumentError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {
        str(station): {
            str(stage): [float(each) for each in values if isinstance(each, int | float) and 0 <= each < 1e9]
            for stage, values in stages.items()
            if isinstance(values, list)
        }
        for station, stages in kept.items()
        if isinstance(stages, dict)
    }
