"""What trains printed: kept at the station, bounded, for its operator alone."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import StorageError
from policies.files import write_atomically

SCORING: Final = "-score"
"""Behind a run's name: what the last container wrote that failed to score."""

_LOG_BYTES: Final = 64 * 1024
_LOGS_KEPT: Final = 500
"""Of the newest runs: 32 MiB at most."""


@dataclass(frozen=True, slots=True)
class TrainLogs:
    """The logs of trains whose containers ended.

    Args:
        folder: the station's alone.
        kept: how many are kept, the newest.
    """

    folder: Path
    kept: int = _LOGS_KEPT

    def keep(self, name: str, text: str) -> None:
        """Keep the end of what a container wrote.

        Raises:
            StorageError: it cannot be written.
        """
        # Replaced characters take more bytes than what they replace.
        write_atomically(self.folder / f"{name}.log", text.encode()[-_LOG_BYTES:], mode=0o600)
        self._drop_oldest()

    def read(self, name: str) -> str:
        """Return what was kept; empty where nothing was."""
        try:
            return (self.folder / f"{name}.log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _drop_oldest(self) -> None:
        try:
            changed: dict[Path, float] = {}
            for path in self.folder.iterdir():
                # What another thread writes beside this one has its own name by now: a run's two logs end at once.
                with contextlib.suppress(FileNotFoundError):
                    changed[path] = path.stat().st_mtime
            for path in sorted(changed, key=changed.__getitem__, reverse=True)[self.kept :]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"old logs of trains cannot be removed ({error.strerror})") from error
