"""What a backup says of itself, and what a restored home says of where it came from.

OUT/manifest.json       this document; written last
home/...            files of the home as they were, each with its digest in the manifest
home/state.db       our own state, one consistent moment of it (also where it lies in PostgreSQL)
home/superlink/superlink.db
keys.sealed         the private keys, where they are encrypted
blobs/<hex>         bytes by digest, where they are included
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from policies.documents import Digest, Moment, Sequence, StrictModel, canonical_json, load_json
from policies.errors import DocumentError, NotFoundError, StateError
from policies.files import write_atomically

MANIFEST: Final = "manifest.json"
HOME: Final = "home"
BLOBS: Final = "blobs"
SEALED: Final = "keys.sealed"
NOTE: Final = "restored.json"
MAX_MANIFEST_BYTES: Final = 512 << 20
VERSION: Final = 1

_SEGMENT: Final = r"[A-Za-z0-9_-][A-Za-z0-9_. -]{0,200}"
_PATH: Final = rf"^(?:{_SEGMENT}/){{0,8}}{_SEGMENT}$"
"""No segment begins with a dot: none leaves the folder."""


class BlobsIn(StrEnum):
    """Whether the bytes by digest are in the backup."""

    INCLUDED = "included"
    LISTED = "listed"


class KeysIn(StrEnum):
    """How private keys are in the backup."""

    INCLUDED = "included"
    ENCRYPTED = "encrypted"
    LEFT_OUT = "left-out"


class BackedFile(StrictModel):
    """One file of the home."""

    path: Annotated[str, Field(pattern=_PATH)]
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    mode: Annotated[int, Field(ge=0, le=0o777)]
    modified_ns: Annotated[int, Field(ge=0)] = Field(description="Orders are told by age.")


class BackedBlob(StrictModel):
    """Bytes by digest."""

    digest: Digest
    size: Annotated[int, Field(ge=0)]


class BackupManifest(StrictModel):
    """What is in a backup."""

    schema_version: Annotated[int, Field(ge=1)] = VERSION
    made: Moment
    program: Annotated[str, Field(max_length=64)]
    tables: Annotated[str, Field(max_length=32)] = Field(description="Version of the database's tables.")
    files: Sequence[BackedFile]
    blobs_in: BlobsIn
    blobs: Sequence[BackedBlob]
    keys_in: KeysIn
    sealed: Digest | None = Field(default=None, description="Of `keys.sealed`.")
    orders: Annotated[int, Field(ge=0)]
    mirror_timestamp: Annotated[int, Field(ge=0)] = Field(
        description="Version of the mirror's timestamp; 0: none."
    )


class RestoredNote(StrictModel):
    """Lies in a restored home until its operator has dealt with it."""

    schema_version: Literal[1] = 1
    restored: Moment
    backup_made: Moment
    orders: Annotated[int, Field(ge=0)]
    mirror_timestamp: Annotated[int, Field(ge=0)]
    revoked: Sequence[str] = Field(description="Parties whose tokens were withdrawn: `role:name`.")
    kept_tokens: Sequence[str] = Field(
        description="Parties whose tokens work as they did when the backup was made."
    )
    missing_blobs: Annotated[int, Field(ge=0)]
    missing_keys: Sequence[str]


def read_manifest(backup: Path) -> BackupManifest:
    """Read what a backup says of itself.

    Raises:
        NotFoundError: there is no backup.
        DocumentError: damaged.
        StateError: a later version of this program made it.
    """
    try:
        data = (backup / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"{backup.name}: is no backup", hint="Name the folder that `pht-orchestrator backup` made."
        ) from error
    try:
        found = load_json(BackupManifest, data, what=MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    except DocumentError:
        if b'"schema_version":1,' in data:
            raise
        raise _later(backup) from None
    if found.schema_version > VERSION:
        raise _later(backup)
    return found


def read_note(home: Path) -> RestoredNote | None:
    """Return where a home was restored from; None where it never was, or its operator has dealt with that."""
    try:
        data = (home / NOTE).read_bytes()
    except FileNotFoundError:
        return None
    return load_json(RestoredNote, data, what=NOTE)


def write_note(home: Path, note: RestoredNote) -> None:
    """Leave the note."""
    write_atomically(home / NOTE, canonical_json(note) + b"\n", mode=0o600)


def _later(backup: Path) -> StateError:
    return StateError(
        f"{backup.name}: was made by a later version of this program", hint="Install that version."
    )
