"""The folder that the hospital chose for predictions: what lies there is whole, and what is being made lies apart.

    <folder>/run-<order>-round-<n>/<SOP Instance UID>.dcm     kept
    <folder>/.making/<SOP Instance UID>.dcm                   made, synced, not kept yet

It is the hospital's, outside the station's home: no service of ours watches it, sends from it or takes images in from it.
"""

import contextlib
import re
import shutil
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from policies.errors import SettingsError, StorageError
from policies.files import sync_folder
from station.storage.files import move_durably, remove_durably, storage_fault, write_atomically

_MAKING: Final = ".making"
_FILE_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_NAME: Final = re.compile(r"run-[0-9a-f]{24}-round-[0-9]{1,6}/2\.25\.[0-9]{1,39}\.dcm")


def require_apart(folder: Path, home: Path) -> None:
    """Refuse a folder that a service of the station could take for its own, or that lies on the way to one.

    Raises:
        SettingsError: naming what to do.
    """
    if not folder.is_absolute():
        raise SettingsError(
            "predictions.folder: is no absolute path", hint="Name it from the root: /srv/predictions."
        )
    there, ours = folder.resolve(), home.resolve()
    if there == ours or ours in there.parents or there in ours.parents:
        raise SettingsError(
            "predictions.folder: lies in the station's home, or around it",
            hint="Choose a folder outside: what a station takes images in from must not be what it writes them to.",
        )


def file_name(order_digest: str, round_: int, instance_uid: str) -> str:
    """Return where an object is kept, relative to the folder.

    >>> file_name("sha256:" + "a" * 64, 2, "2.25.7")
    'run-aaaaaaaaaaaaaaaaaaaaaaaa-round-2/2.25.7.dcm'
    """
    return f"run-{order_digest.removeprefix('sha256:')[:24]}-round-{round_}/{instance_uid}.dcm"


@dataclass(frozen=True, slots=True)
class PredictionFolder:
    """The folder, which the operator made and lets compute write in; one for all who put in and take out."""

    path: Path
    _moving: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def free_bytes(self) -> int:
        """Return how much more it has room for.

        Raises:
            StorageError: it is not there.
        """
        try:
            return shutil.disk_usage(self.path).free
        except OSError as error:
            raise storage_fault(error, "predictions.folder") from error

    def stage(self, name: str, data: bytes) -> None:
        """Write an object where nobody looks yet, synced; one that an earlier life left is replaced.

        Raises:
            StorageError: the disk is full, or the folder is not there or cannot be written.
        """
        making = self._require() / _MAKING
        try:
            making.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise storage_fault(error, "predictions.folder") from error
        write_atomically(self._staged(name), data, _FILE_MODE)

    def keep(self, name: str) -> bool:
        """Put a staged object in its place; says whether it is there now, by this call or by an earlier one.

        Raises:
            StorageError: the folder is not there, or cannot be written.
        """
        place, staged = self._place(name), self._staged(name)
        self._require()
        with self._moving:
            if staged.is_file():
                try:
                    place.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
                    sync_folder(place.parent.parent)
                except OSError as error:
                    raise storage_fault(error, "predictions.folder") from error
                move_durably(staged, place)
            return place.is_file()

    def drop(self, names: Iterable[str]) -> None:
        """Remove staged objects; those that are gone already are.

        Raises:
            StorageError: one is there and cannot be removed.
        """
        for name in names:
            if self._staged(name).parent.is_dir():
                remove_durably(self._staged(name))

    def remove(self, name: str) -> None:
        """Remove a kept object, wherever it is of the two; its run's folder too where that was the last.

        Raises:
            StorageError: the folder is not there, or it cannot be removed.
        """
        self._require()
        with self._moving:
            self.drop((name,))
            place = self._place(name)
            if not place.parent.is_dir():
                return
            remove_durably(place)
            # Where the hospital put something there, it is not empty, and theirs.
            with contextlib.suppress(OSError):
                place.parent.rmdir()
                sync_folder(self.path)

    def sweep(self, besides: Collection[str]) -> int:
        """Remove every staged object that is not among these; for the start, before anything is made.

        Returns:
            How many were removed.

        Raises:
            StorageError: the folder is not there, or one cannot be removed.
        """
        making = self._require() / _MAKING
        if not making.is_dir():
            return 0
        wanted = {self._staged(name).name for name in besides}
        left = [path for path in making.iterdir() if path.name not in wanted]
        for path in left:
            remove_durably(path)
        return len(left)

    def _require(self) -> Path:
        if not self.path.is_dir():
            raise StorageError(
                "predictions.folder: there is no such folder",
                hint="Make it, and let compute's user write in it.",
            )
        return self.path

    def _place(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise StorageError("predictions: a name on record is none of ours")
        return self.path / name

    def _staged(self, name: str) -> Path:
        return self.path / _MAKING / self._place(name).name
