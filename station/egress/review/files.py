"""The arrays of releases that wait for a person: a file per review, in a folder of the station's own.

Invariant: a file that no waiting review names is removed.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import select

from policies.errors import PhtError
from station.egress.release import ReleasedArrays
from station.egress.review.reviews import ReviewState
from station.egress.review.tables import ReviewRow
from station.storage.database import Database
from station.storage.files import move_durably, remove_durably, storage_fault

_SWEEP_EVERY: Final = timedelta(hours=1)


class ParkedFiles:
    """The folder of parked arrays.

    Args:
        database: the station's compute database, which says what waits.
        folder: made when missing, the station's alone, on one file system with the guard's output.
        clock: returns the moment it is.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, database: Database, folder: Path, clock: Callable[[], datetime]) -> None:
        self._database, self._folder, self._clock = database, folder, clock
        # Whether something ended whose file may still be there; when the folder was looked at last.
        self._ended, self._swept = True, clock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise storage_fault(error, folder.name) from error

    def path(self, number: int) -> Path:
        """Return where the arrays of a review lie."""
        return self._folder / f"{number}.safetensors"

    def take(self, number: int, arrays: ReleasedArrays) -> None:
        """Move a release's arrays here; one of the same number that a crash left is replaced."""
        move_durably(arrays.path, self.path(number))

    def wipe(self, number: int) -> None:
        """Remove the arrays of a review that ended; what a crash leaves goes with `sweep`."""
        remove_durably(self.path(number))

    def one_ended(self) -> None:
        """Remember that a review ended, so that the next look is soon."""
        self._ended = True

    def sweep(self) -> int:
        """Remove every file that no waiting review names; safe at any time.

        Returns:
            How many files were removed.
        """
        self._ended, self._swept = False, self._clock()
        try:
            return self._sweep()
        except PhtError:
            self._ended = True
            raise

    def sweep_when_due(self) -> int:
        """Sweep where something ended since the last time, and once an hour; returns how many files were removed."""
        if self._ended or abs(self._clock() - self._swept) >= _SWEEP_EVERY:
            return self.sweep()
        return 0

    def _sweep(self) -> int:
        if not any(self._folder.iterdir()):
            return 0
        # Inside a write transaction: none is being parked meanwhile.
        with self._database.write() as session:
            waiting = session.scalars(
                select(ReviewRow.number).where(ReviewRow.state == ReviewState.WAITING.value)
            )
            return self._remove_all_but(waiting)

    def _remove_all_but(self, waiting: Iterable[int]) -> int:
        kept = {self.path(number).name for number in waiting}
        orphans = [path for path in self._folder.iterdir() if path.name not in kept]
        for path in orphans:
            remove_durably(path)
        return len(orphans)
