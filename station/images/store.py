"""The station's layers: brings an image from where it is, reads every layer through once, keeps what was found.

What is stored was hashed while it was written and read by `policies.layers`; the launcher does both again. A layer that is here is
not fetched again, whichever image or source it came with. One image comes at a time: two trains on one base bring it once. The
lock over room and records is another one, never held while the network is waited for: what is here does not wait for what comes.

Invariants: a record of an image is written when all of its blobs are here and every layer has a finding; a layer that was refused
stays refused, and is not fetched again.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from policies.blobs import BlobFolder
from policies.bundle import MAX_MANIFEST_BYTES
from policies.documents import digest_of
from policies.errors import DocumentError, PhtError, RefusedError, StorageError, TrustError, WireError
from policies.layers import LayerFault, LayerFinding, LayerReader, LayerRefusedError, unpacked
from station.images.records import ImageRecord, LayerRecord, Records
from station.images.room import Coming, Removed, Room
from station.images.sources import ImageSource, SourcedImage, SourcedLayer, Sources, layers_of_config

_CHUNK: Final = 1 << 20
_GROWTH: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as the operator sees it.

    Attributes:
        record: what is known of it.
        bytes: of all its blobs.
        own_bytes: of those that no other image has.
    """

    record: ImageRecord
    bytes: int
    own_bytes: int


class LayerStore:
    """Holds the images of one station.

    Args:
        store: the blobs; the launcher reads them.
        records: what is known of them.
        sources: where they come from.
        room: how much there may be.
        clock: the moment it is.
    """

    def __init__(
        self, store: BlobFolder, records: Records, sources: Sources, room: Room, clock: Callable[[], datetime]
    ) -> None:
        self._store, self._records = store, records
        self._sources, self._room, self._clock = sources, room, clock
        self._bringing, self._lock = threading.Lock(), threading.Lock()

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        """Return the bytes of a train's manifest, verified against its digest; kept, so that a message asks no network.

        Raises:
            NotFoundError: no source has it.
            NetworkError: a source that might have it does not answer.
            TrustError: what is stored has other bytes.
        """
        if not self._store.has(manifest_digest):
            data = self._sources.first(
                lambda source: _manifest_of(source, image_config_digest, manifest_digest)
            )
            with self._lock:
                self._room.require(len(data), keep=image_config_digest)
                self._store.put_bytes(data, expect=manifest_digest)
        self._remember_manifest(image_config_digest, manifest_digest)
        return self._store.read_bytes(manifest_digest, max_bytes=MAX_MANIFEST_BYTES)

    def fetch(self, image_config_digest: str) -> int:
        """Bring what an image lacks here; returns how many bytes had to move.

        Raises:
            NotFoundError, NetworkError: as above.
            WireError, TrustError: bytes that are not what their digest says.
            RefusedError: a layer holds what is refused, or there is no room.
            StorageError: the disk.
        """
        if self._is_here(image_config_digest):
            return 0
        with self._bringing:
            # Who had it before us may have brought this very image.
            if self._is_here(image_config_digest):
                return 0
            moved: list[int] = []
            self._sources.first(
                lambda source: self._bring(
                    source, source.find(image_config_digest), image_config_digest, moved
                )
            )
            return sum(moved)

    def images(self) -> list[StoredImage]:
        """Return every image here, the last used first."""
        records = sorted(self._records.images(), key=lambda record: record.used, reverse=True)
        named = [set(record.blobs()) for record in records]
        found = []
        for number, record in enumerate(records):
            shared = set().union(*named[:number], *named[number + 1 :])
            sizes = {digest: self._size(digest) for digest in named[number]}
            own = sum(size for digest, size in sizes.items() if digest not in shared)
            found.append(StoredImage(record, sum(sizes.values()), own))
        return found

    def finding(self, digest: str) -> LayerFinding | None:
        """Return what was found in a layer.

        Raises:
            LayerRefusedError: it was refused.
        """
        return self._records.layer(digest)

    def used(self) -> int:
        """Return the bytes that the store takes."""
        return self._room.used()

    def collect(self, actor: str | None, *, unneeded: bool) -> Removed:
        """Remove what nothing needs and nobody used for as long as images are kept; with `unneeded`, all that nothing needs.

        Raises:
            StorageError: the disk, or the removal cannot be audited.
        """
        with self._lock:
            return self._room.collect(actor, unneeded=unneeded)

    def _is_here(self, config_digest: str) -> bool:
        """Whether an image is here, all of it; it is used now, then."""
        with self._lock:
            record = self._records.image(config_digest)
            if record is None or not self._is_whole(record):
                return False
            self._records.write_image(record.model_copy(update={"used": self._clock(), "leaving": False}))
            return True

    def _bring(self, source: ImageSource, image: SourcedImage, config_digest: str, moved: list[int]) -> None:
        wanted = layers_of_config(image.config, config_digest)
        if tuple(layer.diff_id for layer in image.layers) != wanted:
            raise WireError("a source lists other layers than the image's config names")
        layers = tuple({layer.diff_id: layer for layer in image.layers}.values())
        parts = frozenset(part.name for layer in layers for part in self._parts(layer))
        try:
            with self._lock:
                self._room.coming = Coming(config_digest, frozenset((*wanted, config_digest)), parts)
                # A layer that was refused is not fetched again to be refused again.
                unread = [layer for layer in layers if self._records.layer(layer.diff_id) is None]
                absent = [layer for layer in layers if not self._store.has(layer.diff_id)]
                for layer in absent:
                    self._records.layer(layer.digest)
                self._room.require(sum(map(self._still_to_come, absent)) + len(image.config))
            if not self._store.has(config_digest):
                moved.append(self._store.put_bytes(image.config, expect=config_digest).size)
            for layer in absent:
                self._bring_layer(source, layer, moved)
            for layer in unread:
                if layer not in absent:
                    self._read_stored(layer.diff_id)
            self._record(source, config_digest, wanted)
        finally:
            with self._lock:
                self._room.coming = Coming()

    def _record(self, source: ImageSource, config_digest: str, layers: tuple[str, ...]) -> None:
        now = self._clock()
        with self._lock:
            if not all(map(self._store.has, (*layers, config_digest))):
                raise StorageError("a layer of an image went missing while the others were brought")
            before = self._records.image(config_digest)
            self._records.write_image(
                ImageRecord(
                    config_digest=config_digest,
                    layers=layers,
                    manifests=() if before is None else before.manifests,
                    source=source.name,
                    fetched=now,
                    used=now,
                )
            )

    def _parts(self, layer: SourcedLayer) -> tuple[Path, Path]:
        """Return where a layer's bytes can lie on their way; a source may write beside the file that it is given."""
        part = self._room.incoming / layer.digest.removeprefix("sha256:")
        return part, part.with_name(part.name + ".part")

    def _still_to_come(self, layer: SourcedLayer) -> int:
        """Return how many bytes of a layer an earlier try did not leave: these are counted as used already."""
        here = sum(part.stat().st_size for part in self._parts(layer) if part.is_file())
        return max(0, layer.size - here)

    def _bring_layer(self, source: ImageSource, layer: SourcedLayer, moved: list[int]) -> None:
        part = self._parts(layer)[0]
        try:
            part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(f"a layer cannot be stored ({error.strerror})") from error
        moved.append(source.download(layer, part))
        resumable = False
        try:
            finding = self._take(part, layer)
        except LayerRefusedError as error:
            # The ratio is of these packed bytes: the layer itself may come packed otherwise, or not at all.
            is_ratio = error.fault is LayerFault.RATIO
            # A source that lies about a layer must not have the true one refused for ever.
            if not is_ratio and not _is_truly(part, layer):
                raise WireError("a layer's bytes are not what its digest says") from error
            refused = layer.digest if is_ratio else layer.diff_id
            self._records.write_layer(LayerRecord(digest=refused, fault=error.fault, entry=error.entry))
            raise
        except TrustError as error:
            raise WireError("a layer's bytes are not what its digest says") from error
        except DocumentError as error:
            raise WireError("a layer is larger than a layer may be") from error
        except (RefusedError, StorageError):
            # There was no room. What was brought is as it should be: the next try goes on with it.
            resumable = True
            raise
        finally:
            if not resumable:
                part.unlink(missing_ok=True)
        self._records.write_layer(LayerRecord(digest=layer.diff_id, finding=finding))

    def _take(self, part: Path, layer: SourcedLayer) -> LayerFinding:
        """Read a layer through and put it in its place."""
        if layer.packing == "gzip":
            found: list[LayerFinding] = []
            chunks = self._growing(unpacked(_chunks(part)))
            self._store.put(_read_through(chunks, found), expect=layer.diff_id)
            return found[0]
        finding = _inspect(_chunks(part), layer.diff_id)
        self._store.take(part, layer.diff_id)
        return finding

    def _growing(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Ask for room as a packed layer grows: what its source said of its size is of the packed one."""
        granted = 0
        for chunk in chunks:
            if granted < len(chunk):
                with self._lock:
                    self._room.require(_GROWTH)
                granted = _GROWTH
            granted -= len(chunk)
            yield chunk

    def _read_stored(self, digest: str) -> None:
        """Read a layer through that came here before there was a reader of today's version."""
        try:
            finding = _inspect(_chunks(self._store.path(digest)), digest)
        except LayerRefusedError as error:
            self._records.write_layer(LayerRecord(digest=digest, fault=error.fault, entry=error.entry))
            raise
        self._records.write_layer(LayerRecord(digest=digest, finding=finding))

    def _is_whole(self, record: ImageRecord) -> bool:
        """Whether everything of an image is here.

        Raises:
            LayerRefusedError: one of its layers was refused.
        """
        read = all(self._records.layer(digest) is not None for digest in record.layers)
        return read and all(map(self._store.has, record.blobs()))

    def _remember_manifest(self, config_digest: str, manifest_digest: str) -> None:
        record = self._records.image(config_digest)
        if record is None or manifest_digest in record.manifests:
            return
        # No message waits for a removal; the next one remembers it.
        if not self._lock.acquire(blocking=False):
            return
        try:
            record = self._records.image(config_digest)
            if record is not None:
                manifests = (*record.manifests[-62:], manifest_digest)
                self._records.write_image(record.model_copy(update={"manifests": manifests}))
        finally:
            self._lock.release()

    def _size(self, digest: str) -> int:
        try:
            return self._store.size(digest)
        except PhtError:
            return 0


def _manifest_of(source: ImageSource, image_config_digest: str, manifest_digest: str) -> bytes:
    data = source.manifest(image_config_digest, manifest_digest)
    if len(data) > MAX_MANIFEST_BYTES or digest_of(data) != manifest_digest:
        raise WireError("a source answered with another manifest than was asked for")
    return data


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise StorageError(f"a layer cannot be read ({error.strerror})") from error


def _is_truly(part: Path, layer: SourcedLayer) -> bool:
    """Whether a file, unpacked, is the layer that the image's config names."""
    hashed = hashlib.sha256()
    chunks = _chunks(part)
    try:
        for chunk in unpacked(chunks) if layer.packing == "gzip" else chunks:
            hashed.update(chunk)
    except LayerRefusedError:
        return False
    return "sha256:" + hashed.hexdigest() == layer.diff_id


def _read_through(chunks: Iterator[bytes], found: list[LayerFinding]) -> Iterator[bytes]:
    reader = LayerReader()
    for chunk in chunks:
        reader.feed(chunk)
        yield chunk
    # Before whoever takes the chunks puts them in their place.
    found.append(reader.finish())


def _inspect(chunks: Iterator[bytes], digest: str) -> LayerFinding:
    reader, hashed = LayerReader(), hashlib.sha256()
    for chunk in chunks:
        hashed.update(chunk)
        reader.feed(chunk)
    # Its bytes before what they say.
    if "sha256:" + hashed.hexdigest() != digest:
        raise TrustError("a layer's bytes are not what its digest says")
    return reader.finish()
