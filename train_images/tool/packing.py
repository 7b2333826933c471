"""Packs a built train: its image as blobs by digest, and its manifest with the image's digest filled in.

What stations and the board would refuse about the image itself is said here, at the desk. The author's manifest keeps its
text and its comments; only the key `images` is written. Packing again into the same folder replaces what was there.
"""

import re
import subprocess
import tarfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from policies.blobs import BlobFolder
from policies.bundle import BundleIndex
from policies.documents import load_yaml
from policies.errors import DocumentError, NotFoundError, RefusedError, UnavailableError, UsageError
from policies.files import write_atomically
from policies.image_archive import ImageBlobs, split_image
from policies.image_config import config_without_program
from policies.layers import LayerRefusedError, inspect_layer
from policies.manifest import ImageVariant, TrainManifest
from station.sandbox.image.rewriting import read_image
from train_images.base.engine import inspect_image
from train_images.tool.description import require_interface
from train_images.tool.folders import BLOBS, INDEX, MANIFEST, PackedTrain, TrainFolder

Variant = Literal["cpu", "cuda"]

_CHUNK: Final = 1 << 20
_SHOWN: Final = 200
_NEXT_KEY: Final = re.compile(r"[A-Za-z_\"'#]")


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed.

    Attributes:
        train: the bundle.
        removed: blobs of an earlier bundle in this folder that are not part of it any more.
    """

    train: PackedTrain
    removed: int


def pack(folder: TrainFolder, tag: str, out: Path, variant: Variant = "cpu") -> Packed:
    """Make a bundle of a train's folder and its image in the engine.

    1. `out` is new, empty, or holds an earlier bundle.
    2. The image is taken out of the engine and split into blobs, each verified.
    3. Its config and its layers are ones that a station would take, and it speaks the interface that the manifest names.
    4. The manifest gets the image's digest, and is read back.
    5. The index is written last: with it the bundle is whole.

    A train without a program has no image: its manifest names the digest of an image config without layers.

    Raises:
        NotFoundError: the image is not built.
        UsageError: `out` holds something else.
        UnavailableError: no Docker engine answers.
        RefusedError: the image is one that stations refuse.
        DocumentError: the image or the manifest does not hold together.
    """
    # 1
    _require_place(out)
    if folder.manifest.program is None:
        return _pack_without_program(folder, out)
    # 2
    if inspect_image(tag) is None:
        raise NotFoundError(f"there is no image {tag}", hint=f"Build it: pht-train build {folder.path}")
    store = BlobFolder(out / BLOBS)
    image = _save(tag, store)
    # 3
    read_image(store, image.config.digest)
    for layer in {each.digest: each for each in image.layers}.values():
        require_layer(store, layer.digest)
    # 4
    text = with_image(folder.text, ImageVariant(variant=variant, config_digest=image.config.digest))
    index = BundleIndex(config=image.config, layers=image.layers, manifest=store.put_bytes(text))
    train = PackedTrain(out, index, load_yaml(TrainManifest, text, what=MANIFEST), store)
    require_interface(train)
    # 5
    write_atomically(out / MANIFEST, text)
    write_atomically(out / INDEX, index.encode())
    return Packed(train, _remove_others(store, index))


def _pack_without_program(folder: TrainFolder, out: Path) -> Packed:
    """Make the bundle of a train that no program belongs to: its manifest, and an image config without layers for its digest."""
    store = BlobFolder(out / BLOBS)
    config = store.put_bytes(config_without_program(folder.manifest.name, folder.manifest.version))
    text = with_image(folder.text, ImageVariant(variant="cpu", config_digest=config.digest))
    index = BundleIndex(config=config, layers=(), manifest=store.put_bytes(text))
    train = PackedTrain(out, index, load_yaml(TrainManifest, text, what=MANIFEST), store)
    write_atomically(out / MANIFEST, text)
    write_atomically(out / INDEX, index.encode())
    return Packed(train, _remove_others(store, index))


def require_layer(store: BlobFolder, digest: str) -> None:
    """Read a layer as stations do. Unlike there, what is refused is named by its path: it is the researcher's own file.

    Raises:
        RefusedError: stations refuse it.
    """
    try:
        with store.open(digest) as file:
            inspect_layer(iter(lambda: file.read(_CHUNK), b""))
    except LayerRefusedError as error:
        path = _path_of(store, digest, error.entry)
        if path is None:
            raise
        raise RefusedError(
            error.code, f"{error.message}: {path}", hint="Stations refuse it: build the image otherwise."
        ) from error


def _path_of(store: BlobFolder, digest: str, entry: int) -> str | None:
    """Return the path of a layer's entry, counted from 1, fit to be shown; None where it is about none or has none."""
    if entry == 0:
        return None
    try:
        with store.open(digest) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            found = next(islice(tar, entry - 1, None), None)
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return None
    if found is None or not found.name:
        return None
    return "".join(each if each.isprintable() else "?" for each in found.name[:_SHOWN])


def with_image(text: bytes, image: ImageVariant) -> bytes:
    """Return a manifest's text with its key `images` naming an image; every other line stays as it is.

    Raises:
        DocumentError: the manifest is wrong, or its `images` is written in a form that cannot be replaced.
    """
    before = load_yaml(TrainManifest, text, what=MANIFEST)
    others = tuple(each for each in before.images if each.variant != image.variant)
    images = tuple(sorted((image, *others), key=lambda each: each.variant))
    written = ["images:  # written by pht-train pack"]
    written += [f"  - {{variant: {each.variant}, config_digest: {each.config_digest}}}" for each in images]
    kept = _without_key(text.decode("utf-8").splitlines(), "images")
    after = ("\n".join([*kept, *written]) + "\n").encode()
    if load_yaml(TrainManifest, after, what=MANIFEST) != before.model_copy(update={"images": images}):
        raise DocumentError(
            f"{MANIFEST}: the key images cannot be replaced where it stands",
            hint="Leave it out, or write it as a plain list at the left margin.",
        )
    return after


def _without_key(lines: list[str], key: str) -> list[str]:
    """Drop a top-level key and what is indented under it; a comment at the margin belongs to what follows."""
    kept: list[str] = []
    dropping = False
    for line in lines:
        if re.match(rf"{key}\s*:", line):
            dropping = True
        elif dropping and _NEXT_KEY.match(line):
            dropping = False
        if not dropping:
            kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def _require_place(out: Path) -> None:
    if not out.exists() or (out / INDEX).is_file() or (out / BLOBS).is_dir():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise UsageError(f"{out}: is something else than a bundle", hint="Choose a new or empty folder.")


def _save(tag: str, store: BlobFolder) -> ImageBlobs:
    try:
        with subprocess.Popen(
            ["docker", "save", tag], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as saving:
            if saving.stdout is None:
                raise UnavailableError("docker save cannot be read")
            try:
                image = split_image(cast("BinaryIO", saving.stdout), store)
            except DocumentError as error:
                saving.kill()
                raise DocumentError(
                    f"{tag}: {error.message}", hint="Is the disk of the Docker engine full?"
                ) from error
            # The padding behind the archive's end.
            saving.stdout.read()
    except OSError as error:
        raise UnavailableError(
            "the docker command cannot be run", hint="Install and start Docker."
        ) from error
    if saving.returncode != 0:
        raise UnavailableError(f"docker save {tag} failed", hint="Look at the Docker engine's log.")
    return image


def _remove_others(store: BlobFolder, index: BundleIndex) -> int:
    wanted = {blob.digest.removeprefix("sha256:") for blob in index.blobs()}
    others = [path for path in (store.root / "sha256").iterdir() if path.name not in wanted]
    for path in others:
        path.unlink()
    return len(others)
