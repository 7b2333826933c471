"""Where people look at what is to leave, and since when: durable, so that a restart neither forgets it nor begins to wait anew."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from orchestrator.federation.orders import RunFolder

FILE: Final = "reviews.json"
SLACK_S: Final = 600.0
"""Beyond the policy's hours, so that the station's own word on the time-out is heard."""


class Reviews(Protocol):
    """Where people look at what is to leave, remembered over a restart."""

    def left_s(self, station: str) -> float | None:
        """Seconds that are left for the person at a station; None where none looks, as far as is known."""

    def begin(self, station: str) -> float:
        """Remember, durably, that a person looks at a station; returns what is left, from when it was first said."""

    def end(self, station: str) -> None:
        """The station said something else; where it says again that a person looks, that is no new wait."""


class NoReviews:
    """For questions that nobody looks at the answers of."""

    def left_s(self, station: str) -> float | None:
        """Nobody looks."""
        del station
        return None

    def begin(self, station: str) -> float:
        """Nobody is waited for."""
        del station
        return 0.0

    def end(self, station: str) -> None:
        """Nothing to forget."""


Show = Callable[[dict[str, datetime], datetime | None], None]
"""Told until when each station is waited for, and since when the first of them looks."""


@dataclass(slots=True)
class StageReviews:
    """The people who look at one stage of one round.

    Attributes:
        folder: of the order.
        stage: round and stage, as they are asked.
        patience_s: how long a person may take.
        show: told of every change.
        clock: the wall clock, in seconds since 1970: a restart knows no other.
        once: a station's people have that long in the whole run, not at each stage: the policy asks for nobody's look, the hospital does.
    """

    folder: RunFolder
    stage: tuple[int, str]
    patience_s: float
    show: Show
    clock: Callable[[], float] = time.time
    once: bool = False
    _since: dict[str, float] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _took: dict[str, float] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what an earlier life of this process knew of the same stage, and what earlier stages took."""
        kept = self.folder.read_json(FILE) or {}
        since, took, spent = (_seconds(kept.get(name)) for name in ("since", "took", "spent"))
        if (kept.get("round"), kept.get("stage")) == self.stage:
            ended = kept.get("ended")
            self._since, self._took, self._spent = since, took, spent
            self._ended = set(since) & {str(name) for name in ended} if isinstance(ended, list) else set()
        else:
            for name, moment in since.items():
                spent[name] = spent.get(name, 0.0) + took.get(name, self._passed_s(moment))
            self._spent = spent
        self._show()

    def left_s(self, station: str) -> float | None:
        """Seconds that are left for the person at a station; None where none looks, as far as is known."""
        return None if station not in self._since or station in self._ended else self._left_s(station)

    def begin(self, station: str) -> float:
        """Remember, durably, that a person looks at a station; returns what is left, from when it was first said."""
        if station not in self._since:
            self._since[station] = self.clock()
            self._write()
        elif station in self._ended:
            self._ended.remove(station)
            self._write()
        return self._left_s(station)

    def end(self, station: str) -> None:
        """The station said something else; where it says again that a person looks, that is no new wait."""
        if station in self._since and station not in self._ended:
            self._ended.add(station)
            self._took[station] = self._passed_s(self._since[station])
            self._write()

    def close(self) -> None:
        """The stage is over: who is still looked at was waited for until now."""
        looking = self._since.keys() - self._ended
        for name in looking:
            self._took[name] = self._passed_s(self._since[name])
        self._ended |= looking
        if looking:
            self._write()

    def _left_s(self, station: str) -> float:
        # A clock that was set back gives nobody more than there was.
        left_s = min(self._since[station] + self.patience_s - self.clock(), self.patience_s)
        return left_s - self._before_s(station)

    def _before_s(self, station: str) -> float:
        return self._spent.get(station, 0.0) if self.once else 0.0

    def _passed_s(self, since: float) -> float:
        return min(max(0.0, self.clock() - since), self.patience_s)

    def _write(self) -> None:
        self.folder.write_json(
            FILE,
            {
                "round": self.stage[0],
                "stage": self.stage[1],
                "since": dict(self._since),
                "ended": sorted(self._ended),
                "took": dict(self._took),
                "spent": dict(self._spent),
            },
        )
        self._show()

    def _show(self) -> None:
        looking = {name: since for name, since in sorted(self._since.items()) if name not in self._ended}
        self.show(
            {
                name: _moment(since + self.patience_s - self._before_s(name))
                for name, since in looking.items()
            },
            _moment(min(looking.values())) if looking else None,
        )


def _seconds(kept: object) -> dict[str, float]:
    if not isinstance(kept, dict):
        return {}
    return {str(name): float(value) for name, value in kept.items() if isinstance(value, int | float)}


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
