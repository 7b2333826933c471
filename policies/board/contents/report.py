"""Reads the image of a packed train and says what is in it. Runs nothing, unpacks nothing, and keeps nothing.

Invariant: all that is reported was read from bytes whose digests the image's config names, and the config is the one that the
bundle names; a bundle of other bytes is refused.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from policies.blobs import BlobFolder
from policies.board.contents.layers import Ceilings, Keep, Layer, read_layer
from policies.board.contents.marks import marks_of
from policies.board.contents.packages import (
    Origin,
    Package,
    Records,
    is_evidence,
    not_read,
    packages_of,
)
from policies.board.contents.settings import ImageSettings, settings_of, steps_of
from policies.board.contents.tar_stream import Kind
from policies.board.contents.tree import Tree
from policies.board.documents.documents_in import read_file
from policies.bundle import BundleIndex
from policies.documents import parse_json
from policies.errors import DocumentError, TrustError
from policies.image_config import MAX_CONFIG_BYTES, diff_ids_of


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer.

    Attributes:
        number: 1 is the lowest.
        step: what made it, as the image's own history says.
        known: from where this layer is known ("base", "approved before"); empty where it is new.
        files: how many it adds or replaces.
        hides: how many paths of lower layers it hides.
    """

    number: int
    digest: str
    size: int
    step: str
    known: str
    files: int
    hides: int


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One path of a layer that is not known already.

    Attributes:
        mode: octal, as `chmod` has it.
        digest: ``sha256:<hex>``; empty for what is no file.
        layer: 1 is the lowest.
        link: where it points.
        origin: whose it is, as the image's own lists have it.
        marks: what there is to remark on it.
    """

    path: str
    kind: Kind
    size: int
    mode: str
    digest: str
    layer: int
    link: str
    origin: Origin
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageContents:
    """What is in an image.

    Attributes:
        config_digest: the image's identity.
        known_bytes: of layers that are known already.
        packages: in all layers, the known ones too.
        licence_families: how many packages there are of each family of licences.
        files: of layers that are not known, the topmost layer first.
        oddities: what image builders do not write.
        packages_not_read: kinds of packages that are there and that are not listed.
    """

    config_digest: str
    size: int
    known_bytes: int
    layers: tuple[ImageLayer, ...]
    settings: ImageSettings
    packages: tuple[Package, ...]
    licence_families: Mapping[str, int]
    files: tuple[ImageFile, ...]
    oddities: tuple[str, ...]
    packages_not_read: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose config and layers belong together; its layers' bytes are not looked at yet."""

    index: BundleIndex
    blobs: BlobFolder
    config: JsonValue
    known: Mapping[str, str] = field(default_factory=dict)


def open_bundle(path: Path, known: Mapping[str, str] | None = None) -> Bundle:
    """Open a bundle's folder, or its index file.

    Args:
        path: the folder, or the ``bundle.json`` in it.
        known: layers by digest, and from where they are known.

    Raises:
        DocumentError: it is none.
        TrustError: its config is another than its index names, or names other layers.
        NotFoundError: a blob is missing.
    """
    index_path = path / "bundle.json" if path.is_dir() else path
    index = BundleIndex.decode(read_file(index_path))
    folder = index_path.parent / "blobs"
    blobs = BlobFolder(folder if folder.is_dir() else index_path.parent)
    data = blobs.read_bytes(index.config.digest, max_bytes=MAX_CONFIG_BYTES)
    config: JsonValue = parse_json(data, what="image config", max_bytes=MAX_CONFIG_BYTES)
    if diff_ids_of(config) != tuple(layer.digest for layer in index.layers):
        raise TrustError("the bundle's layers are not the ones that the image's config names")
    return Bundle(index, blobs, config, dict(known or {}))


def is_bundle(path: Path) -> bool:
    """Whether a path is (meant as) a bundle."""
    return path.suffix == ".json" if path.is_file() else (path / "bundle.json").is_file()


def layers_named_in(path: Path) -> frozenset[str]:
    """Return the layers of a bundle, of an image config, or of what ``docker image inspect`` prints.

    Raises:
        DocumentError: it is none of these.
    """
    if path.is_dir():
        return frozenset(layer.digest for layer in open_bundle(path).index.layers)
    found: JsonValue = parse_json(read_file(path), what=path.name)
    top = found[0] if isinstance(found, list) and len(found) == 1 else found
    if isinstance(top, dict) and "layers" in top:
        return frozenset(layer.digest for layer in open_bundle(path).index.layers)
    rootfs = top.get("RootFS") if isinstance(top, dict) else None
    if isinstance(rootfs, dict):
        top = {"rootfs": {"diff_ids": rootfs.get("Layers")}}
    named: tuple[str, ...] = ()
    with contextlib.suppress(DocumentError):
        named = diff_ids_of(top)
    if not named:
        raise DocumentError(
            f"{path.name}: names no layers",
            hint="Give a bundle, an image config, or the output of `docker image inspect`.",
        )
    return frozenset(named)


def read_contents(bundle: Bundle) -> ImageContents:
    """Read every layer of a bundle, each once.

    Raises:
        DocumentError: a layer is no tar archive as image builders write it, or beyond the ceilings.
        TrustError: a layer holds other bytes.
        NotFoundError: a layer is missing.
    """
    layers, tree, oddities = read_layers(bundle, is_evidence, {})
    steps = steps_of(bundle.config, len(layers))
    records = Records(tree)
    known = [bundle.known.get(layer.digest, "") for layer in layers]
    files = [
        _image_file(path, placed.layer, tree, records)
        for path, placed in tree
        if not known[placed.layer] and placed.file.kind is not Kind.FOLDER
    ]
    files.sort(key=lambda each: (-each.layer, each.path))
    packages = packages_of(tree)
    described = tuple(
        ImageLayer(
            number,
            layer.digest,
            layer.size,
            steps[number - 1],
            known[number - 1],
            sum(file.kind is not Kind.FOLDER for _, file in layer.entries),
            len(layer.hidden) + len(layer.opaque),
        )
        for number, layer in enumerate(layers, 1)
    )
    return ImageContents(
        bundle.index.config.digest,
        sum(layer.size for layer in layers),
        sum(layer.size for layer in described if layer.known),
        described,
        settings_of(bundle.config),
        packages,
        Counter(str(each.family) for each in packages),
        tuple(files),
        tuple(oddities),
        not_read(tree),
    )


def read_layers(bundle: Bundle, keep: Keep, done: dict[str, Layer]) -> tuple[list[Layer], Tree, list[str]]:
    """Read all layers and lay them on top of each other; raises as `read_contents`.

    Args:
        bundle: the image.
        keep: which files' bytes to hold on to.
        done: layers that were read before, by digest; those that are read are added.

    Returns:
        The layers, the files over all of them, and what image builders do not write.
    """
    ceilings, tree = Ceilings(), Tree()
    layers, oddities = [], []
    for number, blob in enumerate(bundle.index.layers, 1):
        layer = done.get(blob.digest)
        if layer is None:
            with bundle.blobs.open(blob.digest) as file:
                layer = done[blob.digest] = read_layer(file, blob.digest, blob.size, keep, ceilings)
        tree.add(layer)
        layers.append(layer)
        oddities += [f"layer {number}: {text}" for text in layer.oddities]
    if ceilings.not_kept:
        oddities.append(f"{ceilings.not_kept} lists of packages are too large together, and were not read")
    return layers, tree, [*oddities, *tree.oddities]


def _image_file(path: str, layer: int, tree: Tree, records: Records) -> ImageFile:
    placed = tree.get(path)
    if placed is None:
        raise DocumentError("a path of the image was lost")
    file = placed.file
    origin = records.origin_of(path, placed)
    return ImageFile(
        shown(path),
        file.kind,
        file.size,
        f"{file.mode:04o}",
        f"sha256:{file.digest.hex()}" if file.digest else "",
        layer + 1,
        shown(file.link),
        origin,
        marks_of(path, placed, origin),
    )


def shown(name: str) -> str:
    r"""Return a name as text that can be written: bytes that are no UTF-8 as ``\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
