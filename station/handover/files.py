"""Where the files of the handover lie, how they are read, and the key that its entries are verified with."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.documents import digest_of
from policies.errors import TrustError
from station.handover.entries import InstanceRecord
from station.storage.files import storage_fault, sync_folder


class HandoverError(TrustError):
    """The handover log does not verify: a gap, a bad signature, a bad hash link or a file that is not itself."""


def instance_path(directory: Path, digest: str) -> Path:
    """Return where a pseudonymised file lies: ``instances/<aa>/<sha256>.dcm``."""
    hexadecimal = digest.removeprefix("sha256:")
    return directory / "instances" / hexadecimal[:2] / f"{hexadecimal}.dcm"


def label_path(directory: Path, digest: str) -> Path:
    """Return where a mask lies: ``labels/<aa>/<sha256>``."""
    hexadecimal = digest.removeprefix("sha256:")
    return directory / "labels" / hexadecimal[:2] / hexadecimal


def make_folder(path: Path) -> None:
    """Make a folder of the handover durably, readable by its group, which is compute's, whatever the umask.

    Raises:
        StorageError: it cannot be made.
    """
    if path.is_dir():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o750)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_fault(error, path.name) from error


def read_instance(directory: Path, record: InstanceRecord) -> bytes:
    """Return a pseudonymised file's bytes, verified against its record.

    Raises:
        HandoverError: the file is missing, a link, or not the bytes its digest names.
    """
    data = read_plain_file(instance_path(directory, record.file), record.size_bytes, "handover instance")
    if len(data) != record.size_bytes or digest_of(data) != record.file:
        raise HandoverError("handover instance: the file is not the one its record names")
    return data


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a PEM Ed25519 public key.

    Raises:
        TrustError: the file is missing or is not such a key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrustError("handover public key: cannot be read", hint="Run the station's init.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError("handover public key: is not an Ed25519 key")
    return key


def read_plain_file(path: Path, max_bytes: int, what: str) -> bytes:
    """Return a file's bytes; no link is followed, and nothing over the bound is read.

    Raises:
        HandoverError: it cannot be read, or is over `max_bytes`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise HandoverError(f"{what}: cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise HandoverError(f"{what}: is over {max_bytes} bytes")
    return data
