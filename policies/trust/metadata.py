"""Metadata files of a repository that we keep ourselves: finding and reading them. Verifies no signature."""

from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from policies.errors import PhtError, StateError, TrustError
from policies.signing import Signer

_Role = TypeVar("_Role", Root, Snapshot, Targets, Timestamp)


def versions(metadata: Path, role: str) -> list[int]:
    """Return the versions of a role's metadata in a folder, lowest first."""
    stems = (path.name.split(".")[0] for path in metadata.glob(f"*.{role}.json"))
    return sorted(int(stem) for stem in stems if stem.isdigit())


def whole_seconds(moment: datetime) -> datetime:
    """Return a moment as TUF metadata writes it."""
    return moment.replace(microsecond=0)


def read_metadata(path: Path, role: type[_Role]) -> _Role:
    """Read our own metadata file; no signature is checked.

    Raises:
        StateError: it is missing, damaged or of another role.
    """
    try:
        signed = Metadata.from_bytes(path.read_bytes()).signed
    except (OSError, RepositoryError) as error:
        raise StateError(f"{path.name}: cannot be read as repository metadata") from error
    if not isinstance(signed, role):
        raise StateError(f"{path.name}: is not {role.type} metadata")
    return signed


def sign_metadata(metadata: Metadata[_Role], signer: Signer, *, append: bool = False) -> None:
    """Sign metadata of ours.

    Raises:
        TrustError: the signer does not sign.
    """
    try:
        metadata.sign(signer.crypto_signer, append=append)
    except RepositoryError as error:
        # python-tuf wraps what the signer says.
        if isinstance(error.__cause__, PhtError):
            raise error.__cause__ from error
        raise TrustError("the metadata cannot be signed") from error
