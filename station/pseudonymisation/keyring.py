"""All versions of the hospital's pseudonym key: the one in use, and those before it.

One file holds them (0600), so that a backup of it is whole. Rotating adds a version and never drops one: who has the file
can make every earlier pseudonym again. A rotated key gives every patient another pseudonym, other UIDs and another shift
(that is what it is for), so what was taken in under an earlier version and what comes after does not link; the package's
README says when to rotate and what to do then.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Self

from policies.documents import canonical_json
from policies.errors import StateError, StorageError
from policies.files import sync_folder
from station.pseudonymisation.keys import (
    MAX_VERSIONS,
    KeyFile,
    KeyVersion,
    PseudonymKey,
    new_version,
    read_key_file,
)


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What may be told of a version: nothing of its secret."""

    key_id: str
    version: int
    created_at: datetime


class Keyring:
    """The versions of a key file, newest first. Made by `load` and `rotated`."""

    def __init__(self, document: KeyFile) -> None:
        self._document = document

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file with all its versions.

        Raises:
            StateError: it is not there, readable by others, damaged, or its versions do not fall.
        """
        ring = cls(read_key_file(path))
        versions = [entry.version for entry in ring._versions]
        if any(older >= newer for newer, older in pairwise(versions)):
            raise StateError("pseudonym key: its versions are not in order", hint="Restore the key's backup.")
        for entry in ring._versions:
            PseudonymKey.of(entry)
        return ring

    @property
    def _versions(self) -> list[KeyVersion]:
        return [self._document, *self._document.earlier]

    @property
    def current(self) -> PseudonymKey:
        """The version in use."""
        return PseudonymKey.of(self._document)

    def version(self, number: int) -> PseudonymKey:
        """Return one version, to make its pseudonyms again.

        Raises:
            StateError: the file has no such version.
        """
        for entry in self._versions:
            if entry.version == number:
                return PseudonymKey.of(entry)
        raise StateError("pseudonym key: there is no such version")

    def describe(self) -> list[KeyDescription]:
        """Return what may be told of each version, newest first."""
        return [KeyDescription(entry.key_id, entry.version, entry.created_at) for entry in self._versions]

    def rotated(self, now: datetime) -> "Keyring":
        """Return a keyring with a new version in use; nothing is written yet.

        Raises:
            StateError: the file holds as many versions as it may.
        """
        if len(self._versions) >= MAX_VERSIONS:
            raise StateError("pseudonym key: there are too many versions", hint="Make a new station.")
        made = new_version(self._document.version + 1, now)
        earlier = tuple(
            KeyVersion.model_validate({name: getattr(entry, name) for name in KeyVersion.model_fields})
            for entry in self._versions
        )
        return Keyring(
            KeyFile.model_validate({"schema": "pht-pseudonym-key", **made.model_dump(), "earlier": earlier})
        )

    def replace(self, path: Path, before: "Keyring") -> None:
        """Write this keyring over the one it was made from, durably: whole or not at all, 0600, the same owner.

        Raises:
            StateError: the file is no longer the one this was made from.
            StorageError: it cannot be written.
        """
        if read_key_file(path).key_id != before.current.key_id:
            raise StateError("pseudonym key: somebody else changed it meanwhile")
        data = canonical_json(self._document.model_dump(mode="json", by_alias=True)) + b"\n"
        new = path.with_name(path.name + ".new")
        try:
            owner = path.stat()
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                if os.geteuid() == 0:
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            new.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise StorageError(f"pseudonym key: cannot be written ({error.strerror})") from error
