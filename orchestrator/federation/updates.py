"""The bytes of stations' updates: where they lie until they are averaged, and that they are not kept.

    blobs/updates/<order hex>/<station>/<hex>    what a station sent for an order; the front puts it there
    runs/<order hex>/replies/<station>.<hex>     what came within a reply, while its stage is under way

Invariant: a station's word for its release reaches these two places of its own, and nothing else that the orchestrator holds.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from orchestrator.federation.orders import FolderQueue, RunFolder
from policies.blobs import BlobFolder
from policies.errors import StateError
from policies.files import write_atomically
from policies.wire.instructions import Blob

FOLDER = "updates"


def update_path(blobs: Path, order_digest: str, station: str, digest: str) -> Path:
    """Where an update lies, or would, that a station sent for an order.

    Args:
        blobs: the orchestrator's folder of blobs.
        order_digest: the order.
        station: its name.
        digest: of the update.
    """
    return blobs / FOLDER / _hex(order_digest) / station / _hex(digest)


def find_update(blobs: Path, station: str, digest: str) -> Path | None:
    """Return an update that a station sent for any order, as long as it is kept."""
    for folder in _folders(blobs):
        path = folder / station / _hex(digest)
        if path.is_file():
            return path
    return None


def is_over(folder: RunFolder) -> bool:
    """Whether an order takes no updates any more; one whose state is damaged is not known to be over."""
    try:
        return folder.read_progress().state.is_over
    except StateError:
        return False


def sweep_updates(queue: FolderQueue, blobs: Path) -> None:
    """Delete all updates of orders that are over, or are not here: whoever sent them, and whether a reply ever named them.

    A resumed order asks again, and stations send again what they recorded.
    """
    for updates in _folders(blobs):
        folder = queue.folder(updates.name)
        if is_over(folder) or not (folder.path / "order.json").exists():
            shutil.rmtree(updates, ignore_errors=True)
    for folder in queue.folders():
        if folder.replies.is_dir() and is_over(folder):
            shutil.rmtree(folder.replies, ignore_errors=True)


class StationUpdates:
    """The updates of one order, inline ones in its folder and the others as their stations sent them."""

    def __init__(self, folder: RunFolder, blobs: BlobFolder) -> None:
        self._folder = folder
        self._blobs = blobs.root

    def keep(self, station: str, release: Blob, arrays: bytes | None) -> Path | None:
        """Where an update lies, its inline bytes written first; None where that station sent none."""
        if arrays is not None:
            self._folder.replies.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._inline_path(station, release), arrays, mode=0o600)
        elif not self._sent_path(station, release).exists():
            self._take_over(station, release)
        path = self.path(station, release)
        return path if path.exists() else None

    def path(self, station: str, release: Blob | None) -> Path:
        """Where a station's update lies, or would.

        Raises:
            StateError: there is none to speak of.
        """
        if release is None:
            raise StateError("a training reply without a release")
        inline = self._inline_path(station, release)
        return inline if inline.exists() else self._sent_path(station, release)

    def forget(self, station: str, release: Blob) -> None:
        """Delete an update that a station sent for this order."""
        self._sent_path(station, release).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete what stations sent for this order: after the average it is of no use, also what came too late."""
        for path in (self._blobs / FOLDER / self._folder.path.name).glob("*/*"):
            path.unlink(missing_ok=True)

    def forget_inline(self) -> None:
        """Delete the inline bytes of a stage that is over."""
        shutil.rmtree(self._folder.replies, ignore_errors=True)

    def _take_over(self, station: str, release: Blob) -> None:
        # A station asks for bytes without saying for which order, and sends none that are here from it already.
        found = find_update(self._blobs, station, release.digest)
        if found is not None:
            path = self._sent_path(station, release)
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            with suppress(FileExistsError, FileNotFoundError):
                os.link(found, path)

    def _sent_path(self, station: str, release: Blob) -> Path:
        return update_path(self._blobs, self._folder.order_digest, station, release.digest)

    def _inline_path(self, station: str, release: Blob) -> Path:
        return self._folder.replies / f"{station}.{_hex(release.digest)}"


def _folders(blobs: Path) -> list[Path]:
    try:
        return list((blobs / FOLDER).iterdir())
    except FileNotFoundError:
        return []


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
