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


@dataclass(slots=True)
class StageReviews:
    """The people who look at one stage of one round.

    Attributes:
        folder: of the order.
        stage: round and stage, as they are asked.
        patience_s: how long a person may take.
        show: told of every change, with the moment until which each station is waited for.
        clock: the wall clock, in seconds since 1970: a restart knows no other.
    """

    folder: RunFolder
    stage: tuple[int, str]
    patience_s: float
    show: Callable[[dict[str, datetime]], None]
    clock: Callable[[], float] = time.time
    _since: dict[str, float] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Read what an earlier life of this process knew of the same stage."""
        kept = self.folder.read_json(FILE) or {}
        if (kept.get("round"), kept.get("stage")) == self.stage and isinstance(kept.get("since"), dict):
            self._since = {
                str(name): float(since)
                for name, since in kept["since"].items()
                if isinstance(since, int | float)
            }
            ended = kept.get("ended")
            self._ended = (
                set(self._since) & {str(name) for name in ended} if isinstance(ended, list) else set()
            )
        self._show()

    def left_s(self, station: str) -> float | None:
        """Seconds that are left for the person at a station; None where none looks, as far as is known."""
        since = self._since.get(station)
        return None if since is None or station in self._ended else self._left_s(since)

    def begin(self, station: str) -> float:
        """Remember, durably, that a person looks at a station; returns what is left, from when it was first said."""
        if station not in self._since:
            self._since[station] = self.clock()
            self._write()
        elif station in self._ended:
            self._ended.remove(station)
            self._write()
        return self._left_s(self._since[station])

    def end(self, station: str) -> None:
        """The station said something else; where it says again that a person looks, that is no new wait."""
        if station in self._since and station not in self._ended:
            self._ended.add(station)
            self._write()

    def _left_s(self, since: float) -> float:
        # A clock that was set back gives nobody more than there was.
        return min(since + self.patience_s - self.clock(), self.patience_s)

    def _write(self) -> None:
        self.folder.write_json(
            FILE,
            {
                "round": self.stage[0],
                "stage": self.stage[1],
                "since": dict(self._since),
                "ended": sorted(self._ended),
            },
        )
        self._show()

    def _show(self) -> None:
        self.show(
            {
                name: datetime.fromtimestamp(int(since + self.patience_s), UTC)
                for name, since in sorted(self._since.items())
                if name not in self._ended
            }
        )
