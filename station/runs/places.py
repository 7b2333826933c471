"""A run's name among containers, and the folders that it has under that name."""

import shutil
from pathlib import Path

from policies.errors import StorageError
from station.runs.repository import Run


def run_id(run: Run) -> str:
    """Return the name of the run's container."""
    return f"run-{run.order_digest.removeprefix('sha256:')[:24]}"


def fresh_folder(path: Path, mode: int) -> None:
    """Make a run's folder anew; what an earlier life left in it is gone.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        path.chmod(mode)
    except OSError as error:
        raise StorageError(
            f"a run's folder cannot be made ({error.strerror})", hint="Free disk space."
        ) from error
