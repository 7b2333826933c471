"""The operator's use cases on images: what is there and who needs it, and throwing away what nobody does."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from policies.documents import Digest, Moment, Sequence, StrictModel
from policies.errors import RefusedError
from station.images.room import Needs
from station.images.store import LayerStore

_EVERY = timedelta(hours=1)


class ImageView(StrictModel):
    """One image.

    Attributes:
        bytes: of its layers.
        own_bytes: of those that no other image here has.
        needed_by: policies and orders, in words; None where that cannot be said now.
        set_id_files: files in it that would change the user of who runs them; without effect in a train's container.
    """

    config_digest: Digest
    layers: int
    bytes: int
    own_bytes: int
    source: str
    fetched: Moment
    used: Moment
    needed_by: Sequence[str] | None
    set_id_files: int


class ImagesView(StrictModel):
    """All of them.

    Attributes:
        used_bytes: what the store takes.
        quota_bytes: what it may take.
    """

    images: Sequence[ImageView]
    used_bytes: int
    quota_bytes: int


class CollectedView(StrictModel):
    """What went."""

    images: Sequence[Digest]
    bytes: int


@dataclass(slots=True)
class ImagesDesk:
    """Implements `station.web.images_api.ImageUses`, and looks after the store once an hour.

    Attributes:
        store: the images.
        needs: what is needed.
        quota: what the store may take, in bytes.
        clock: the moment it is.
    """

    store: LayerStore
    needs: Needs
    quota: int
    clock: Callable[[], datetime]
    _looked: datetime | None = None

    def images(self) -> ImagesView:
        """Return what is there."""
        needs = self.needs()
        views = tuple(
            ImageView(
                config_digest=image.record.config_digest,
                layers=len(image.record.layers),
                bytes=image.bytes,
                own_bytes=image.own_bytes,
                source=image.record.source,
                fetched=image.record.fetched,
                used=image.record.used,
                needed_by=None if needs is None else needs.get(image.record.config_digest, ()),
                set_id_files=sum(map(self._set_id, image.record.layers)),
            )
            for image in self.store.images()
        )
        return ImagesView(images=views, used_bytes=self.store.used(), quota_bytes=self.quota)

    def collect(self, actor: str, *, unneeded: bool) -> CollectedView:
        """Remove what nothing needs: what was not used for as long as images are kept, or all of it at once."""
        gone = self.store.collect(actor, unneeded=unneeded)
        return CollectedView(images=gone.images, bytes=gone.bytes)

    def look(self) -> int:
        """Once an hour, remove what was not needed or used for as long as images are kept; returns how many images went."""
        now = self.clock()
        if self._looked is not None and timedelta() <= now - self._looked < _EVERY:
            return 0
        gone = self.store.collect(None, unneeded=False)
        self._looked = now
        return len(gone.images)

    def _set_id(self, digest: str) -> int:
        try:
            found = self.store.finding(digest)
        except RefusedError:
            return 0
        return 0 if found is None else found.set_id
