"""What of an image is taken over, and the archive that the engine is given. Pure but for reading blobs.

The image's own config is not run. Only its layers, its architecture and an allow-list of
variables go into a config that we write; that config's digest is the id under which the engine must show the image. The archive
has no names, so loading it cannot replace anything in the engine.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from policies.bundle import MAX_CONFIG_BYTES, BlobFolder, diff_ids_of
from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import DocumentError, NotFoundError, RefusedError, TrustError
from policies.refusals import RefusalCode

_CHUNK_BYTES: Final = 1 << 20
_TAR_BLOCK: Final = 512
_MAX_VALUE: Final = 4096

ALLOWED_VARIABLES: Final = re.compile(
    r"PATH|LANG|LANGUAGE|LC_[A-Z]+|TZ|PYTHONPATH|PYTHONHASHSEED|PYTHONUTF8|R_HOME|R_LIBS|JAVA_HOME"
    r"|(OMP|MKL|OPENBLAS|NUMEXPR|TORCH)_NUM_THREADS"
)
"""Variables of an image that its container gets. Others are dropped without a word."""

REFUSED_VARIABLES: Final = re.compile(
    r"LD_.*|DYLD_.*|GLIBC_TUNABLES|GCONV_PATH|NVIDIA_.*|CUDA_.*|NV_.*|PYTHONSTARTUP|PYTHONHOME|PYTHONINSPECT|BASH_ENV|ENV"
    r"|DOCKER_.*|(HTTP|HTTPS|ALL|FTP|NO)_PROXY|(http|https|all|ftp|no)_proxy"
)
"""Variables that change what a process loads, which devices it is given or whom it talks to: an image that sets one is
refused by name, so that its author hears of it."""


@dataclass(frozen=True, slots=True)
class RewrittenImage:
    """An image as we load it.

    Attributes:
        image_id: digest of `config`; the engine must show the image under it.
        config: the config that we wrote.
        diff_ids: the layers, lowest first.
    """

    image_id: str
    config: bytes
    diff_ids: tuple[str, ...]


def read_image(store: BlobFolder, config_digest: str) -> RewrittenImage:
    """Read an image's config from our store and rewrite it.

    Raises:
        RefusedError: it is not there, holds other bytes than its digest says, or asks for what is refused.
    """
    try:
        raw = store.read_bytes(config_digest, max_bytes=MAX_CONFIG_BYTES)
        config = parse_json(raw, what="image config", max_bytes=MAX_CONFIG_BYTES)
        diff_ids = diff_ids_of(config)
    except NotFoundError as error:
        raise RefusedError(
            RefusalCode.IMAGE_UNAVAILABLE, "the image's config is not in the layer store"
        ) from error
    except TrustError as error:
        raise RefusedError(
            RefusalCode.IMAGE_DIGEST, "the image's config holds other bytes than were signed"
        ) from error
    except DocumentError as error:
        raise RefusedError(RefusalCode.IMAGE_CONFIG, error.message) from error
    return rewrite(config, diff_ids)


def rewrite(config: Mapping[str, JsonValue], diff_ids: tuple[str, ...]) -> RewrittenImage:
    """Keep layers, platform and allowed variables of an image config; drop the rest.

    Raises:
        RefusedError: another operating system, or a variable that is refused.
    """
    architecture = config.get("architecture")
    if config.get("os") != "linux" or not isinstance(architecture, str):
        raise RefusedError(RefusalCode.IMAGE_CONFIG, "the image is not for Linux")
    inner = config.get("config")
    variables = inner.get("Env") if isinstance(inner, dict) else None
    written = {
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": list(allowed_variables(variables))},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    encoded = canonical_json(written)
    return RewrittenImage(digest_of(encoded), encoded, diff_ids)


def allowed_variables(variables: JsonValue) -> tuple[str, ...]:
    """Return the ``NAME=value`` pairs that a container gets of its image's.

    Raises:
        RefusedError: the image sets one that is refused, or the list is malformed.
    """
    if variables is None:
        return ()
    if not isinstance(variables, list):
        raise RefusedError(RefusalCode.IMAGE_CONFIG, "the image's variables are no list")
    kept: list[str] = []
    for pair in variables:
        text = pair if isinstance(pair, str) else ""
        name, found, value = text.partition("=")
        if not found or "\0" in value or len(value) > _MAX_VALUE:
            raise RefusedError(RefusalCode.IMAGE_CONFIG, "one of the image's variables is malformed")
        if REFUSED_VARIABLES.fullmatch(name):
            raise RefusedError(
                RefusalCode.IMAGE_CONFIG,
                f"the image sets {name[:64]}, which no train may set",
                hint="Remove it from the Dockerfile and build the train again.",
            )
        if ALLOWED_VARIABLES.fullmatch(name):
            kept.append(text)
    return tuple(kept)


def verify_layers(diff_ids: Iterable[str], store: BlobFolder) -> None:
    """Read layers of our store through.

    Raises:
        RefusedError: one is missing or holds other bytes.
    """
    for digest in set(diff_ids):
        try:
            store.rehash(digest)
        except NotFoundError as error:
            raise RefusedError(RefusalCode.IMAGE_UNAVAILABLE, "a layer is not in the layer store") from error
        except TrustError as error:
            raise RefusedError(
                RefusalCode.IMAGE_DIGEST, "a layer holds other bytes than were signed"
            ) from error


def archive(image: RewrittenImage, store: BlobFolder, *, skip: int) -> Iterator[bytes]:
    """Yield the archive for ``docker load``, without names, hashing each layer as it is read.

    Args:
        image: the image.
        store: holds its layers.
        skip: leave out this many of the lowest layers; the engine has them. (Docker 20.10 looks a layer up by its chain before
            it opens its file.)

    Raises:
        RefusedError: a layer is missing or holds other bytes. The engine then has no manifest and makes no image.
    """
    sent: set[str] = set()
    for digest in image.diff_ids[skip:]:
        if digest not in sent:
            sent.add(digest)
            yield from _layer(digest, store)
    config_name = f"{image.image_id.removeprefix('sha256:')}.json"
    yield from _file(config_name, image.config)
    listing: JsonValue = [
        {"Config": config_name, "RepoTags": None, "Layers": [_layer_name(each) for each in image.diff_ids]}
    ]
    yield from _file("manifest.json", canonical_json(listing))
    yield b"\0" * _TAR_BLOCK * 2


def _layer(digest: str, store: BlobFolder) -> Iterator[bytes]:
    try:
        size = store.size(digest)
        hashed = hashlib.sha256()
        with store.open(digest) as file:
            yield _tar_header(_layer_name(digest), size)
            left = size
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                hashed.update(chunk)
                yield chunk
    except NotFoundError as error:
        raise RefusedError(RefusalCode.IMAGE_UNAVAILABLE, "a layer is not in the layer store") from error
    if left or "sha256:" + hashed.hexdigest() != digest:
        raise RefusedError(RefusalCode.IMAGE_DIGEST, "a layer holds other bytes than were signed")
    yield b"\0" * (-size % _TAR_BLOCK)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield _tar_header(name, len(content))
    yield content + b"\0" * (-len(content) % _TAR_BLOCK)


def _layer_name(digest: str) -> str:
    return f"{digest.removeprefix('sha256:')}.tar"


def _tar_header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry.tobuf(format=tarfile.GNU_FORMAT)
