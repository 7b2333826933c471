"""Which layers of our store were read through a moment ago and have not been touched since.

A train of kind ``map`` starts hundreds of containers of one image in a row. Reading a gigabyte before each of them would cost
more than the containers. So the containers of one series share what was read: a layer is read through before the first of them,
again once a minute while they go on, and again as soon as its file is not the very one that was read.

A stamp is taken through the descriptor that is hashed, before and after: device, inode, size, and the times of the last change
of bytes and of the inode. Nobody but root can set the latter, which moves with every write, rename, link and change of mode. A
file that changed less than `_SETTLED_S` before it was read gets no stamp: the clock behind those times moves in steps, and a
second write in the same step would not be seen.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from policies.blobs import BlobFolder
from policies.errors import NotFoundError, RefusedError
from policies.refusals import RefusalCode

VALID_S: Final = 60.0
"""After this long a layer is read again, whatever its stamp says."""
MAX_SERIES: Final = 64

_SETTLED_S: Final = 2.0

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp: Stamp
    until: float


class _Series:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: dict[str, _Seen] = {}


class LayerVerifier:
    """Reads layers through; remembers them for a series of containers, in this process and for a short time.

    Args:
        store: our layers.
        clock: seconds that only grow.
        wall: seconds since the epoch, as files are stamped with.
    """

    def __init__(
        self,
        store: BlobFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._series: dict[str, _Series] = {}

    def verify(self, diff_ids: Iterable[str], series: str | None = None) -> int:
        """See that layers hold what their digests say; returns how many were read through.

        Args:
            diff_ids: the layers.
            series: containers that are started one after the other for one run; without it every layer is read.

        Raises:
            RefusedError: one is missing or holds other bytes.
        """
        wanted = tuple(dict.fromkeys(diff_ids))
        if series is None:
            for digest in wanted:
                self._read(digest)
            return len(wanted)
        kept = self._of(series)
        # Those that start side by side wait for the one that reads.
        with kept.lock:
            return sum(self._look(digest, kept.seen) for digest in wanted)

    def _of(self, series: str) -> _Series:
        with self._lock:
            found = self._series.pop(series, None) or _Series()
            self._series[series] = found
            while len(self._series) > MAX_SERIES:
                self._series.pop(next(iter(self._series)))
            return found

    def _look(self, digest: str, seen: dict[str, _Seen]) -> int:
        before = seen.pop(digest, None)
        now = self._clock()
        if before is not None and now < before.until and self._stamp(digest) == before.stamp:
            seen[digest] = before
            return 0
        started = self._wall()
        stamp = self._read(digest)
        if stamp is not None and max(stamp[3], stamp[4]) < (started - _SETTLED_S) * 1e9:
            seen[digest] = _Seen(stamp, now + VALID_S)
        return 1

    def _stamp(self, digest: str) -> Stamp | None:
        try:
            with self._store.open(digest) as file:
                return _stamp_of(file.fileno())
        except NotFoundError:
            return None

    def _read(self, digest: str) -> Stamp | None:
        """Hash a layer; returns its stamp where it held still meanwhile."""
        try:
            with self._store.open(digest) as file:
                before = _stamp_of(file.fileno())
                found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
                after = _stamp_of(file.fileno())
        except NotFoundError as error:
            raise RefusedError(RefusalCode.IMAGE_UNAVAILABLE, "a layer is not in the layer store") from error
        if found != digest:
            raise RefusedError(RefusalCode.IMAGE_DIGEST, "a layer holds other bytes than were signed")
        return after if before == after else None


def _stamp_of(descriptor: int) -> Stamp:
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
