"""What the addresses of the distribution API name: repositories, tags, digests. Parses; knows nothing of what is there.

A repository is a train's name. A tag is one of: the train's version; that with the image's variant; ``cfg-<hex>``, the image by its
config's digest; ``train-<hex>``, the artifact with the train.yaml. No tag ever leads to another train than before.
"""

import re
from dataclasses import dataclass
from typing import Final

from orchestrator.registry.oci.faults import OciCode, OciError
from policies.documents import Digest

# Distribution specification 1.1, "Pulling manifests"; one component, since trains' names have no slash.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_ANY_NAME: Final = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION: Final = re.compile(r"([0-9]+\.[0-9]+\.[0-9]+)(?:-(cpu|cuda))?")
_NAMED: Final = re.compile(r"(cfg|train)-([0-9a-f]{64})")
MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class VersionTag:
    """A train's version, and which of its images."""

    version: str
    variant: str | None


@dataclass(frozen=True, slots=True)
class ImageTag:
    """An image by its config."""

    config_digest: Digest


@dataclass(frozen=True, slots=True)
class TrainTag:
    """The artifact of a train.yaml."""

    manifest_digest: Digest


Tag = VersionTag | ImageTag | TrainTag


def repository_of(name: str) -> str:
    """Return the name of a repository.

    Raises:
        OciError: it is none, or none of a train.
    """
    if len(name) > MAX_NAME or not _ANY_NAME.fullmatch(name):
        raise OciError(OciCode.NAME_INVALID, "this is no name of a repository")
    if not _NAME.fullmatch(name):
        raise OciError(
            OciCode.NAME_UNKNOWN, "a repository is named like its train: letters, digits, inner hyphens"
        )
    return name


def digest_named(text: str) -> Digest:
    """Return a digest.

    Raises:
        OciError: it is none, or not SHA-256.
    """
    if not _DIGEST.fullmatch(text):
        raise OciError(OciCode.DIGEST_INVALID, "a digest is sha256:<64 lower-case hex digits>")
    return text


def is_digest(reference: str) -> bool:
    """Whether a reference is a digest, or is meant to be one."""
    return ":" in reference


def tag_named(text: str) -> Tag:
    """Return what a tag stands for.

    Raises:
        OciError: none of a train can have it.
    """
    if found := _VERSION.fullmatch(text):
        return VersionTag(found[1], found[2])
    if found := _NAMED.fullmatch(text):
        digest = "sha256:" + found[2]
        return ImageTag(digest) if found[1] == "cfg" else TrainTag(digest)
    if not _TAG.fullmatch(text):
        raise OciError(OciCode.MANIFEST_INVALID, "this is no tag")
    raise OciError(OciCode.MANIFEST_UNKNOWN, "a train's tags are its version, cfg-<hex> and train-<hex>")
