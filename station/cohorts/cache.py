"""Volumes made before, shared by trains: decoding a series once is enough until somebody withdraws.

    <root>/<key>/volume.nii    the uncompressed bytes as a cohort has them: no id of anybody in them
    <root>/<key>/entry.json    their digest and grid, and the digests of the slices

The key is over the slices' digests and the version of the code that makes volumes, so an entry is never stale. Files
are for compute's own user (0600), cohorts get copies (shared blocks where the file system can): never a second name of
one file, whose mode and owner a container's cohort would share. Invariants: what a cohort gets is what its digest
says, or made anew; what was purged is not put back; an entry is whole or not there. A cache that cannot be written
costs time, not a cohort.
"""

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from policies.documents import Digest, StrictModel, canonical_json, digest_of, load_json
from policies.documents import Sequence as Tuple
from policies.errors import DocumentError, StorageError
from station.cohorts.decoding import DecoderPool
from station.cohorts.layout import sync_folder, write_file
from station.cohorts.series import VolumeGrid
from station.cohorts.source import SourceFile
from station.cohorts.unusable import Unusable
from station.cohorts.volumes import VOLUME_VERSION, Volume, write_volume

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES: Final = 200 << 30

_VOLUME: Final = "volume.nii"
_ENTRY: Final = "entry.json"
_HIDDEN: Final = "."
_CHUNK: Final = 4 << 20
_MAX_ENTRY_BYTES: Final = 4 << 20
# linux/fs.h, _IOW(0x94, 9, int): let two files share their blocks until one is written.
_FICLONE: Final = 0x40049409


class _Entry(StrictModel):
    version: Literal[1] = 1
    digest: Digest
    size_bytes: Annotated[int, Field(ge=1)]
    grid: VolumeGrid
    slices: Tuple[Digest]


class VolumeCache:
    """The station's volume cache; safe to use from several threads of one process.

    Args:
        root: its folder, made when missing.
        max_bytes: what all volumes together may take; the least recently used go first.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._purged: set[str] = set()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            root.chmod(0o700)
        except OSError as error:
            raise StorageError(f"the volume cache cannot be made ({error.strerror})") from error

    def lay(self, files: Sequence[SourceFile], path: Path, pool: DecoderPool) -> Volume | Unusable:
        """Write a series' volume as a new file, from the cache where it is there and whole.

        Args:
            files: the series' slices; those without a digest are never cached.
            path: a file that is not there yet.
            pool: decoder processes, for a volume that must be made.

        Raises:
            OSError: `path` cannot be written.
            UnavailableError: no decoder process can be started.
        """
        slices = tuple(sorted(file.digest for file in files if file.digest is not None))
        if len(slices) != len(files):
            return write_volume(files, path, pool)
        key = digest_of(canonical_json({"version": VOLUME_VERSION, "slices": slices})).removeprefix("sha256:")
        if volume := self._take(key, path):
            return volume
        made = write_volume(files, path, pool)
        if isinstance(made, Volume):
            try:
                self._put(key, made, slices, path)
            except OSError:
                log.warning("volumes.not_cached")
        return made

    def sources(self) -> frozenset[str]:
        """Return the digests of all slices that cached volumes were made of."""
        with self._lock:
            return frozenset(digest for _, entry in self._entries() for digest in entry.slices)

    def purge(self, digests: Collection[str]) -> int:
        """Remove every volume that any of these slices is in, for good; removing what is gone already is no error.

        Returns:
            How many volumes were removed.

        Raises:
            StorageError: one cannot be removed.
        """
        unwanted = frozenset(digests)
        with self._lock:
            self._purged |= unwanted
            found = [folder for folder, entry in self._entries() if not unwanted.isdisjoint(entry.slices)]
            try:
                for folder in found:
                    self._remove(folder)
            except OSError as error:
                raise StorageError(f"a cached volume cannot be removed ({error.strerror})") from error
        return len(found)

    def expire(self, before: datetime) -> int:
        """Remove every volume that no cohort asked for since `before`.

        Returns:
            How many volumes were removed.

        Raises:
            StorageError: one cannot be removed.
        """
        with self._lock:
            try:
                old = [
                    folder
                    for folder, _ in self._entries()
                    if (folder / _ENTRY).stat().st_mtime < before.timestamp()
                ]
                for folder in old:
                    self._remove(folder)
            except OSError as error:
                raise StorageError(f"a cached volume cannot be removed ({error.strerror})") from error
        return len(old)

    def sweep(self) -> int:
        """Remove what an interrupted life left half made or half removed; for the start.

        Raises:
            StorageError: it cannot be removed.
        """
        with self._lock:
            whole = {folder for folder, _ in self._entries()}
            try:
                left = [folder for folder in self._root.iterdir() if folder not in whole]
                for folder in left:
                    self._remove(folder)
            except OSError as error:
                raise StorageError(f"the volume cache cannot be swept ({error.strerror})") from error
        return len(left)

    def _take(self, key: str, path: Path) -> Volume | None:
        folder = self._root / key
        entry = _read_entry(folder)
        if entry is None:
            return None
        try:
            digest = _copy(folder / _VOLUME, path)
        except FileNotFoundError:
            return None
        if digest == entry.digest:
            os.utime(folder / _ENTRY) if (folder / _ENTRY).exists() else None
            return Volume(entry.grid, digest)
        log.warning("volumes.damaged")
        path.unlink()
        with self._lock:
            self._remove(folder)
        return None

    def _put(self, key: str, volume: Volume, slices: tuple[str, ...], path: Path) -> None:
        size = path.stat().st_size
        if size > self._max_bytes:
            return
        making = self._root / f"{_HIDDEN}making-{secrets.token_hex(8)}"
        making.mkdir(mode=0o700)
        try:
            _copy(path, making / _VOLUME)
            entry = _Entry(digest=volume.digest, size_bytes=size, grid=volume.grid, slices=slices)
            write_file(making / _ENTRY, canonical_json(entry), mode=0o600)
            os.utime(making / _ENTRY)
            sync_folder(making)
            with self._lock:
                if self._purged.isdisjoint(slices) and not (self._root / key).exists():
                    self._make_room(size)
                    making.rename(self._root / key)
                    sync_folder(self._root)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _make_room(self, size: int) -> None:
        entries = sorted(self._entries(), key=lambda found: (found[0] / _ENTRY).stat().st_mtime_ns)
        taken = sum(entry.size_bytes for _, entry in entries)
        for folder, entry in entries:
            if taken + size <= self._max_bytes:
                return
            self._remove(folder)
            taken -= entry.size_bytes

    def _entries(self) -> Iterator[tuple[Path, _Entry]]:
        for folder in sorted(self._root.iterdir()):
            if not folder.name.startswith(_HIDDEN) and (entry := _read_entry(folder)) is not None:
                yield folder, entry

    def _remove(self, folder: Path) -> None:
        """Remove an entry: gone under its name at once, then for real."""
        if not folder.is_dir():
            folder.unlink(missing_ok=True)
            return
        if not folder.name.startswith(_HIDDEN):
            hidden = folder.with_name(f"{_HIDDEN}gone-{secrets.token_hex(8)}")
            folder.rename(hidden)
            sync_folder(self._root)
            folder = hidden
        shutil.rmtree(folder)


def _read_entry(folder: Path) -> _Entry | None:
    try:
        data = (folder / _ENTRY).read_bytes()
        return load_json(_Entry, data, what="cached volume", max_bytes=_MAX_ENTRY_BYTES)
    except (OSError, DocumentError):
        return None


def _copy(source: Path, target: Path) -> str:
    """Copy a file durably, sharing blocks where that can be, and return the digest of what was copied."""
    sha256 = hashlib.sha256()
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(reading, "rb", buffering=0) as original:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(writing, "wb", buffering=0) as copy:
                shared = _share(copy.fileno(), original.fileno())
                while chunk := original.read(_CHUNK):
                    sha256.update(chunk)
                    if not shared:
                        _write_all(copy.fileno(), chunk)
                os.fsync(copy.fileno())
        except OSError:
            target.unlink()
            raise
    return "sha256:" + sha256.hexdigest()


def _share(target: int, source: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
