"""Where an image can come from: what a source must be able to do, and the values it answers with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

from policies.documents import digest_of, parse_json
from policies.errors import DocumentError, NetworkError, NotFoundError, PhtError, WireError
from policies.image_config import MAX_CONFIG_BYTES, diff_ids_of
from policies.layers import LayerFault, LayerRefusedError

Packing = Literal["none", "gzip"]
_Failure = NetworkError | NotFoundError | WireError | LayerRefusedError
_T = TypeVar("_T")

MAX_CONFIG: Final = MAX_CONFIG_BYTES
_GRAVITY: Final[dict[type[PhtError], int]] = {
    NotFoundError: 0, WireError: 1, LayerRefusedError: 2, NetworkError: 3
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourcedLayer:
    """One layer as a source has it.

    Attributes:
        diff_id: the digest of its uncompressed bytes, as the image's config names it.
        digest: of the bytes that are moved.
        size: of the bytes that are moved.
        packing: how these are packed.
    """

    diff_id: str
    digest: str
    size: int
    packing: Packing = "none"


@dataclass(frozen=True, slots=True)
class SourcedImage:
    """An image as a source has it; its config has been held against its digest.

    Attributes:
        config: the config's bytes.
        layers: lowest first, exactly those that the config names.
    """

    config: bytes
    layers: tuple[SourcedLayer, ...]


class ImageSource(Protocol):
    """One place that has images and manifests of trains, by digest. Whatever it says is held against a digest.

    Each method raises ``NotFoundError`` where the source does not have what is asked for, ``NetworkError`` where it does not
    answer or answers nonsense, and ``WireError`` for bytes that are not what their digest says.
    """

    @property
    def name(self) -> str:
        """What the operator knows it by."""
        ...

    def manifest(self, image_config_digest: str, manifest_digest: str) -> bytes:
        """Return a train's manifest, verified."""
        ...

    def find(self, image_config_digest: str) -> SourcedImage:
        """Say what makes an image."""
        ...

    def download(self, layer: SourcedLayer, path: Path) -> int:
        """Bring a layer's bytes into a file, whole and verified; continues what an earlier try left. Returns the bytes moved."""
        ...


def layers_of_config(config: bytes, digest: str) -> tuple[str, ...]:
    """Return the diff ids of an image's config, which is held against its digest first.

    Raises:
        WireError: other bytes, or they name no layers.
    """
    if digest_of(config) != digest:
        raise WireError("an image's config is not what its digest says")
    try:
        found = diff_ids_of(parse_json(config, what="image config", max_bytes=MAX_CONFIG))
    except DocumentError as error:
        raise WireError("the image's config names no layers") from error
    if not found:
        raise WireError("the image's config names no layers")
    return found


class Sources:
    """Several sources, asked in the hospital's order."""

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        """Ask these, the first one first."""
        self._sources = tuple(sources)

    def first(self, ask: Callable[[ImageSource], _T]) -> _T:
        """Return what the first source gives that can be asked, has it, and tells the truth about it.

        A source that packed a layer beyond the ratio is passed over too: the next one may have it packed otherwise.
        """
        failed: _Failure | None = None
        for source in self._sources:
            try:
                return ask(source)
            except (NetworkError, NotFoundError, WireError) as error:
                failed = _graver(failed, error)
            except LayerRefusedError as error:
                if error.fault is not LayerFault.RATIO:
                    raise
                failed = _graver(failed, error)
        raise failed or NotFoundError("no source of images is set")


def _graver(before: _Failure | None, now: _Failure) -> _Failure:
    """Keep the failure that says most: a source that was not heard may have it, one that lies is worth a word."""
    return now if before is None or _GRAVITY[type(now)] > _GRAVITY[type(before)] else before
