"""The finished rounds of an order, one line each, appended and synced; read from where the reader stopped.

With a hundred stations a line has some 50 kB, and an order up to ten thousand of them: nothing here writes or parses what
stood before. A line that a crash cut off is not there, and the next one takes its place.

Who reads keeps, per process, where each line begins. The file only grows; where it does not (it was restored, or replaced),
it is read anew.
"""

import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from policies.errors import StorageError
from policies.files import sync_folder

_MAX_KNOWN = 256


@dataclass(slots=True)
class _Index:
    """Where the whole lines of one file begin, as far as it was read.

    Attributes:
        identity: device and inode of the file.
        ends: one entry more than there are lines: the first is 0, the last where the next line goes.
        size: of the file when it was read, with what may be cut off at its end.
    """

    identity: tuple[int, int] | None = None
    ends: list[int] = field(default_factory=lambda: [0])
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_known: "OrderedDict[Path, _Index]" = OrderedDict()
_known_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class RoundLog:
    """``rounds.jsonl`` of one order. One process writes, any number read."""

    path: Path

    def count(self) -> int:
        """How many rounds are finished."""
        index = _index_of(self.path)
        with index.lock:
            self._look(index)
            return len(index.ends) - 1

    def read(self, after: int = 0, at_most_bytes: int | None = None) -> list[dict[str, Any]]:
        """The rounds after number `after`, oldest first; where they are to be few, at least one."""
        index = _index_of(self.path)
        with index.lock:
            self._look(index)
            if after >= len(index.ends) - 1:
                return []
            begin, ends = index.ends[after], index.ends[after + 1 :]
        if at_most_bytes is not None:
            ends = [end for end in ends if end - begin <= at_most_bytes] or ends[:1]
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                lines = file.read(ends[-1] - begin).splitlines()
            return [json.loads(line) for line in lines]
        except (OSError, ValueError):
            # Replaced under our hands: the next look reads it anew.
            return []

    def is_damaged(self) -> bool:
        """Whether lines follow one that cannot be read: they would be lost with it.

        A crash damages the last line only, and the next one takes its place.
        """
        index = _index_of(self.path)
        with index.lock:
            self._look(index)
            try:
                with self.path.open("rb") as file:
                    file.seek(index.ends[-1])
                    return file.readline().endswith(b"\n") and bool(file.read(1))
            except FileNotFoundError:
                return False

    def append(self, entry: dict[str, Any], number: int) -> None:
        """Write round `number`, durably; what is there of it or of later ones goes.

        Raises:
            StorageError: the disk.
        """
        line = json.dumps(entry, sort_keys=True, allow_nan=False).encode() + b"\n"
        index = _index_of(self.path)
        try:
            with index.lock:
                self._look(index)
                end = index.ends[min(number - 1, len(index.ends) - 1)]
                new = index.identity is None
                with open(self.path, "r+b", opener=_make) as file:
                    file.truncate(end)
                    file.seek(end)
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write the finished round ({error.strerror})") from error
        if new:
            sync_folder(self.path.parent)

    def _look(self, index: _Index) -> None:
        """Read what came since the last look."""
        try:
            with self.path.open("rb") as file:
                _read_on(index, file)
        except FileNotFoundError:
            index.identity, index.ends, index.size = None, [0], 0


def _read_on(index: _Index, file: BinaryIO) -> None:
    status = os.fstat(file.fileno())
    identity = (status.st_dev, status.st_ino)
    if identity != index.identity or status.st_size < index.size:
        index.identity, index.ends = identity, [0]
    elif status.st_size == index.size:
        return
    index.size = status.st_size
    file.seek(index.ends[-1])
    for line in file:
        if not line.endswith(b"\n"):
            return
        try:
            json.loads(line)
        except ValueError:
            # Half on the disk when the power went: nothing after it counts.
            return
        index.ends.append(index.ends[-1] + len(line))


def _index_of(path: Path) -> _Index:
    with _known_lock:
        index = _known.setdefault(path, _Index())
        _known.move_to_end(path)
        if len(_known) > _MAX_KNOWN:
            _known.popitem(last=False)
        return index


def _make(path: str, _flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
