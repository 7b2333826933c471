"""Files from a folder: copied into the spool, links never followed."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from policies.documents import Name
from policies.errors import DataError, NotFoundError
from station.intake import spool as spooling
from station.intake.spool import SourceKind, StagedBatch
from station.storage.files import storage_fault

# The settings say what is taken up; this bounds what is copied at all.
MAX_FILE_BYTES = 16 << 30
NOT_IMAGES = frozenset({"DICOMDIR"})


def stage_folder(spool: Path, source: Path, collection: Name | None = None) -> StagedBatch:
    """Copy a folder's files into a new batch of the spool, durably; links, pipes and DICOMDIR are skipped and counted.

    The copies are given to the spool's owner, so that an operator who is root can stage for intake's user.

    Raises:
        NotFoundError: the source is not a folder.
        DataError: the source holds no files.
        StorageError: there is not enough disk; nothing is left behind.
    """
    if not source.is_dir():
        raise NotFoundError("the source is not a folder", hint="Give a folder of DICOM files, or a zip file.")
    files = list(_plain_files(source))
    plain = [path for path, size in files if size is not None]
    spooling.require_space(spool, sum(size for _, size in files if size is not None))
    if not plain:
        raise DataError("the source holds no files", hint="Give a folder of DICOM files.")
    with spooling.begin(spool, SourceKind.FOLDER, collection) as batch:
        for path in plain:
            _copy(batch, path)
        return batch.finish(skipped=len(files) - len(plain))


def _plain_files(source: Path) -> Iterator[tuple[Path, int | None]]:
    for folder, folders, names in os.walk(source, followlinks=False, onerror=_unreadable):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            status = path.lstat()
            taken = stat.S_ISREG(status.st_mode) and name not in NOT_IMAGES
            yield path, status.st_size if taken else None


def _unreadable(error: OSError) -> None:
    # os.walk would pass over a folder it cannot read, and its images would be missing without a word.
    raise storage_fault(OSError(error.errno or errno.EIO, error.strerror), "a folder of the source") from None


def _copy(batch: spooling.IncomingBatch, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # Not the source's name: it may hold a patient's.
        raise storage_fault(OSError(error.errno or errno.EIO, error.strerror), "source") from None
    with os.fdopen(descriptor, "rb") as file:
        batch.copy(file, MAX_FILE_BYTES)
