"""Opens a frozen cohort to the user of its container."""

import os
import stat
from pathlib import Path

from policies.errors import StorageError


def open_to_readers(cohort: Path) -> None:
    """Let any user read a cohort: the container's is a fresh one. Its parents stay closed to the users of this host.

    Raises:
        StorageError: it cannot be done, or the cohort holds a link.
    """
    try:
        for folder, folders, files in os.walk(cohort, onerror=_raise):
            _allow(Path(folder), 0o555)
            for name in files:
                _allow(Path(folder, name), 0o444)
            for name in folders:
                if Path(folder, name).is_symlink():
                    raise StorageError("a cohort holds files and folders only, no links")
    except OSError as error:
        raise StorageError(f"a cohort cannot be opened to its train: {error.strerror}") from error


def _allow(path: Path, bits: int) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise StorageError("a cohort holds files and folders only, no links")
    mode = stat.S_IMODE(status.st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)


def _raise(error: OSError) -> None:
    raise error
