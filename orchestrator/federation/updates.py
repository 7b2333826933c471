"""The bytes of stations' updates: where they lie until they are averaged, and that they are not kept."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from orchestrator.federation.order_weights import weights_in
from orchestrator.federation.orders import FolderQueue, RunFolder
from policies.bundle import BlobFolder
from policies.errors import StateError
from policies.files import write_atomically
from policies.wire.instructions import Blob


class StationUpdates:
    """The updates of one order, inline ones in its folder and the others among the blobs.

    Attributes:
        seen: what stations called their updates, as far as it may still be sent again: of this round and the one before, and
            whatever of earlier ones is on the disk.
    """

    def __init__(self, folder: RunFolder, blobs: BlobFolder) -> None:
        self._folder = folder
        self._blobs = blobs
        self.seen: set[str] = set()
        self._before: frozenset[str] = frozenset()

    def keep(self, release: Blob, arrays: bytes | None) -> Path | None:
        """Where an update lies, its inline bytes written first; None where there are none."""
        if arrays is not None:
            self._folder.replies.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._inline_path(release), arrays, mode=0o600)
        path = self.path(release)
        return path if path.exists() else None

    def path(self, release: Blob | None) -> Path:
        """Where an update lies, or would.

        Raises:
            StateError: there is none to speak of.
        """
        if release is None:
            raise StateError("a training reply without a release")
        inline = self._inline_path(release)
        return inline if inline.exists() else self._blobs.path(release.digest)

    def forget(self, names: Iterable[str]) -> None:
        """Delete updates by their hex digests: they are of no use after the average, and are not kept.

        A station chooses what it calls its release: what some order uses as weights is not deleted for it.
        """
        used: set[str] = set()
        for folder in FolderQueue(self._folder.path.parent).folders():
            # An order that cannot be read cannot run; it holds up no other.
            with suppress(StateError):
                used |= weights_in(folder)
        for name in names:
            if "sha256:" + name not in used:
                self._blobs.path("sha256:" + name).unlink(missing_ok=True)

    def turn(self, answered: Iterable[str]) -> None:
        """Begin another round's list with what was averaged in this one: of all rounds it would outgrow the checkpoint."""
        now = frozenset(answered)
        left = {digest for digest in self.seen if self._blobs.path(digest).exists()}
        self.seen = left | now | self._before
        self._before = now

    def forget_seen(self) -> None:
        """Delete what a station sent again after it was averaged."""
        self.forget(digest.removeprefix("sha256:") for digest in self.seen)

    def forget_inline(self) -> None:
        """Delete the inline bytes of a stage that is over."""
        shutil.rmtree(self._folder.replies, ignore_errors=True)

    def _inline_path(self, release: Blob) -> Path:
        return self._folder.replies / release.digest.removeprefix("sha256:")
