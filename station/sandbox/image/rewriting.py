"""What of an image is taken over. Pure but for reading its config from our layer store.

The image's own config is not run. Only its layers, its architecture and an allow-list of variables go into a config that we write.
From it follow, before any engine has seen the image, the ids under which both kinds of image store must show it: the config's
digest (Docker's own store, Podman), or that of the OCI manifest over it (containerd's store).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from policies.blobs import BlobFolder
from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import DocumentError, NotFoundError, RefusedError, TrustError
from policies.image_config import MAX_CONFIG_BYTES, diff_ids_of
from policies.refusals import RefusalCode

_MAX_VALUE: Final = 4096
_OCI: Final = "application/vnd.oci.image"

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
        config: the config that we wrote.
        config_digest: its digest; the image's id in a store that names images by their config.
        manifest: the OCI manifest over config and layers.
        manifest_digest: its digest; the image's id in a store that names images by their manifest.
        diff_ids: the layers, lowest first.
    """

    config: bytes
    config_digest: str
    manifest: bytes
    manifest_digest: str
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
    if not diff_ids:
        raise RefusedError(RefusalCode.IMAGE_CONFIG, "the image has no layers, so there is nothing to start")
    return rewrite(config, diff_ids, _sizes(diff_ids, store))


def _sizes(diff_ids: tuple[str, ...], store: BlobFolder) -> tuple[int, ...]:
    try:
        return tuple(store.size(each) for each in diff_ids)
    except NotFoundError as error:
        raise RefusedError(RefusalCode.IMAGE_UNAVAILABLE, "a layer is not in the layer store") from error


def rewrite(
    config: Mapping[str, JsonValue], diff_ids: tuple[str, ...], sizes: tuple[int, ...]
) -> RewrittenImage:
    """Keep layers, platform and allowed variables of an image config; drop the rest.

    Args:
        config: the image's own.
        diff_ids: its layers, lowest first.
        sizes: their bytes, uncompressed, in the same order.

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
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": {
                "mediaType": f"{_OCI}.config.v1+json",
                "digest": digest_of(encoded),
                "size": len(encoded),
            },
            "layers": [
                {"mediaType": f"{_OCI}.layer.v1.tar", "digest": digest, "size": size}
                for digest, size in zip(diff_ids, sizes, strict=True)
            ],
        }
    )
    return RewrittenImage(encoded, digest_of(encoded), manifest, digest_of(manifest), diff_ids)


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
