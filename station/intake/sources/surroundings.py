"""What a retrieval needs of the station."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from station.intake.sources.reception import Route, Sink


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a retrieval needs of the station.

    Attributes:
        zone: the hospital's time zone.
        spool: intake's spool, for what C-GET brings.
        sink: takes what C-GET brought.
        expecting: has the receiver take what C-MOVE brings, as long as the context lasts.
        clock: tells the time.
    """

    zone: tzinfo
    spool: Path
    sink: Sink
    expecting: Callable[[Route], AbstractContextManager[None]]
    clock: Callable[[], datetime]
