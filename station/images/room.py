"""How much the layers take, and what goes when there must be room.

An image goes when no policy in force and no open order names it: in the order of last use when room is needed, and once it was
not used for as long as the hospital keeps images. What is still needed never goes; where it is not known what is needed (the
board's policies cannot be verified now), nothing does. Each removal is audited first, once, and in this order: marked, out of the engine,
its layers that no other image has, its manifests, its config, its record. A removal that broke off is finished by the next look.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from policies.blobs import BlobFolder
from policies.errors import RefusedError, StorageError, UnavailableError
from policies.refusals import RefusalCode
from station.images.records import ImageRecord, Records

LOG = logging.getLogger("station.images")

MIB: Final = 1 << 20
STRAY_AGE: Final = timedelta(days=1)
"""Bytes that nothing names are let lie this long: a broken fetch goes on with them."""

Needs = Callable[[], Mapping[str, tuple[str, ...]] | None]
"""Returns, per image config digest, what needs it in words; None where that is not known now."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The hospital's limits.

    Attributes:
        quota: the most bytes that the store takes.
        free: the least bytes that stay free on its disk.
        keep_for: how long an image stays that nothing needs.
    """

    quota: int
    free: int
    keep_for: timedelta


class Engine(Protocol):
    """What the launcher does for a collection."""

    def remove_image(self, config_digest: str) -> bool:
        """Remove our rewritten image from the engine; says whether it is gone. False where a container uses it."""
        ...


@dataclass(frozen=True, slots=True)
class Removed:
    """What a collection removed.

    Attributes:
        images: their config digests.
        bytes: freed in our store.
    """

    images: tuple[str, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Coming:
    """What is being brought now: nothing of it goes, whoever needs room and whichever other image names it too.

    Attributes:
        config_digest: the image.
        blobs: all of it.
        parts: the files in `incoming` that are its layers on their way.
    """

    config_digest: str = ""
    blobs: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()


class Room:
    """Keeps one store within its limits. Its caller holds the store's lock, and says in `coming` what it is bringing.

    Args:
        store: the blobs.
        records: what is known of them.
        needs: what is needed, and by what.
        engine: where images are removed too.
        note: audits a removal, given its config digest, the bytes that will be free, and who asked for it (None: the station).
        terms: the hospital's limits.
        clock: the moment it is.
        free: bytes free for us on the disk of a folder.
    """

    def __init__(
        self,
        store: BlobFolder,
        records: Records,
        needs: Needs,
        engine: Engine,
        note: Callable[[str, int, str | None], None],
        terms: Terms,
        clock: Callable[[], datetime],
        free: Callable[[Path], int] | None = None,
    ) -> None:
        self._store, self._records = store, records
        self._needs, self._engine, self._note = needs, engine, note
        self._terms, self._clock = terms, clock
        self._free = free or _free
        self.incoming: Final = store.root / "incoming"
        self.coming = Coming()

    def used(self) -> int:
        """Return how many bytes the store takes, with what is on its way."""
        return sum(
            size for folder in (self._store.root / "sha256", self.incoming) for _, size, _ in _files(folder)
        )

    def require(self, wanted: int, *, keep: str = "") -> None:
        """See to it that this many bytes more have room; remove what nothing needs, the longest unused first.

        Args:
            wanted: bytes.
            keep: the image that they are for.

        Raises:
            RefusedError: there is no room, and nothing that may go.
        """
        if self._fits(wanted):
            return
        self._remove_parts(lambda name, _age: name not in self.coming.parts)
        for record in self._victims(keep):
            if self._fits(wanted):
                return
            self._remove(record)
        if not self._fits(wanted):
            quota, used = self._terms.quota // MIB, self.used() // MIB
            raise RefusedError(
                RefusalCode.RESOURCES_DISK,
                f"{-(-wanted // MIB)} MiB of layers do not fit: {used} of {quota} MiB are taken by images that are needed, "
                f"{self._free(self._store.root) // MIB} MiB are free on the disk and {self._terms.free // MIB} must stay free",
                hint="Free disk space, raise images.quota_mib in station.toml, or look at `pht-station images list`.",
            )

    def collect(self, actor: str | None = None, *, unneeded: bool = False) -> Removed:
        """Finish what broke off, and remove what was not needed or used for too long; with `unneeded`, however long."""
        before, now = self.used(), self._clock()
        gone = [
            record.config_digest
            for record in self._victims("")
            if (unneeded or record.leaving or now - record.used > self._terms.keep_for)
            and self._remove(record, actor)
        ]
        aged = STRAY_AGE.total_seconds()
        self._remove_parts(lambda name, age: age > aged and name not in self.coming.parts)
        self._remove_strays(aged)
        return Removed(tuple(gone), max(0, before - self.used()))

    def _fits(self, wanted: int) -> bool:
        fits = self.used() + wanted <= self._terms.quota
        return fits and self._free(self._store.root) - wanted >= self._terms.free

    def _victims(self, keep: str) -> list[ImageRecord]:
        """Return what may go, the first to go first."""
        needs = self._needs()
        if needs is None:
            return []
        free = [
            record
            for record in self._records.images()
            if record.config_digest not in needs
            and record.config_digest not in {keep, self.coming.config_digest}
        ]
        return sorted(free, key=lambda record: (not record.leaving, record.used, record.config_digest))

    def _remove(self, record: ImageRecord, actor: str | None = None) -> bool:
        others = self.coming.blobs.union(
            *(o.blobs() for o in self._records.images() if o.config_digest != record.config_digest)
        )
        mine = [blob for blob in dict.fromkeys(record.blobs()) if blob not in others]
        if not record.leaving:
            self._note(record.config_digest, sum(map(self._size, mine)), actor)
            self._records.write_image(record.model_copy(update={"leaving": True}))
        try:
            if not self._engine.remove_image(record.config_digest):
                return False
        except (UnavailableError, RefusedError):
            # Its id in the engine follows from what lies here: it goes when the launcher can be asked.
            LOG.warning("images.engine_not_asked")
            return False
        # The config comes last: with it the engine's id could be found again.
        for blob in mine:
            self._remove_blob(blob)
        self._records.remove_image(record.config_digest)
        return True

    def _size(self, digest: str) -> int:
        return self._store.size(digest) if self._store.has(digest) else 0

    def _remove_blob(self, digest: str) -> None:
        try:
            self._store.remove(digest)
        except OSError as error:
            raise StorageError(f"a layer cannot be removed ({error.strerror})") from error
        self._records.remove_layer(digest)

    def _remove_parts(self, wanted: Callable[[str, float], bool]) -> None:
        now = time.time()
        for path, _, changed in _files(self.incoming):
            if wanted(path.name, now - changed):
                path.unlink(missing_ok=True)

    def _remove_strays(self, aged: float) -> None:
        """Remove blobs that no record names: a fetch that was never finished, and files half written."""
        needs = self._needs()
        if needs is None:
            return
        named = {blob for record in self._records.images() for blob in record.blobs()}
        named |= self.coming.blobs.union(needs)
        now = time.time()
        for path, _, changed in _files(self._store.root / "sha256"):
            if f"sha256:{path.name}" not in named and now - changed > aged:
                path.unlink(missing_ok=True)


def _files(folder: Path) -> list[tuple[Path, int, float]]:
    """Return the files of a folder with their bytes on disk and the time of their last change."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                found.append((Path(entry.path), facts.st_size, facts.st_mtime))
    except FileNotFoundError:
        return []
    return found


def _free(folder: Path) -> int:
    """Return the bytes that this user may still write on a folder's disk."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
