"""The pseudonym key and what is derived from it: patient pseudonyms, UIDs, shifts in time.

One secret per hospital; HKDF-SHA-256 (RFC 5869) makes a sub-key for each project and use, so a pseudonym in one
project says nothing of another's, and a UID says nothing of a date. All derivations are HMAC-SHA-256 (RFC 2104):
the same patient later gets the same pseudonym, and without the key nobody can try names or numbers.

Invariants: the secret never appears in a repr, an error or a log; a key file that others may read is refused.
"""

import base64
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from policies.documents import Moment, Sequence, StrictModel, canonical_json, load_json
from policies.errors import DocumentError, StateError, StorageError
from station.pseudonymisation.dates import Shift

KEY_BYTES = 32
SHIFT_DAYS_MAX = 365
SHIFT_MINUTES_MAX = 30
WELL_KNOWN_UIDS = "1.2.840.10008."
_PSEUDONYM_CHARACTERS = 20
MAX_VERSIONS = 64
_MAX_KEY_FILE_BYTES = 32 * 1024


class KeyVersion(StrictModel):
    """One version of the hospital's key."""

    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    version: Annotated[int, Field(ge=1)]
    created_at: Moment
    secret: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")] = Field(repr=False)


class KeyFile(KeyVersion):
    """What the key file holds: the version in use, and those it replaced, whose pseudonyms can so be made again."""

    schema_name: Annotated[Literal["pht-pseudonym-key"], Field(alias="schema")] = "pht-pseudonym-key"
    earlier: Sequence[KeyVersion] = Field(default=(), max_length=MAX_VERSIONS - 1)


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """The hospital's secret. Made by `generate` or `load` only.

    Attributes:
        key_id: names the secret without telling it.
        version: grows with each rotation.
    """

    key_id: str
    version: int
    _secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, path: Path, *, now: datetime, version: int = 1) -> Self:
        """Make a new key and write it to `path` with mode 0600; an existing file is never overwritten.

        Raises:
            StorageError: the file exists or cannot be written.
        """
        made = new_version(version, now)
        document = KeyFile.model_validate({"schema": "pht-pseudonym-key", **made.model_dump()})
        data = canonical_json(document.model_dump(mode="json", by_alias=True)) + b"\n"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise StorageError(f"pseudonym key: cannot be written ({error.strerror})") from error
        return cls.of(made)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the version in use from a key file.

        Raises:
            StateError: the file is missing, a link, readable by others, or not a key file.
        """
        return cls.of(read_key_file(path))

    @classmethod
    def of(cls, version: KeyVersion) -> Self:
        """Return the key of one version.

        Raises:
            StateError: the secret is not the one that the key's id names.
        """
        return cls.restored(version.key_id, version.version, version.secret)

    @classmethod
    def restored(cls, key_id: str, version: int, secret_text: str) -> Self:
        """Return the key that `secret_text` told of.

        Raises:
            StateError: the secret is not the one that the key's id names.
        """
        secret = base64.b64decode(secret_text)
        if not hmac.compare_digest(_key_id(secret), key_id):
            raise StateError("pseudonym key: the file is damaged", hint="Restore the key from its backup.")
        return cls(key_id, version, secret)

    def secret_text(self) -> str:
        """Return the secret itself, in base64: for a worker of intake over its own socket, never for a file or a log."""
        return base64.b64encode(self._secret).decode("ascii")

    def for_project(self, project: str) -> "ProjectKeys":
        """Derive the project's sub-keys, one per use."""
        return ProjectKeys(
            patient=self.sub_key(project, "patient"),
            uid=self.sub_key(project, "uid"),
            date=self.sub_key(project, "date"),
        )

    def sub_key(self, project: str, use: str) -> bytes:
        """Derive the sub-key of one project and use; it says nothing of any other."""
        info = _joined("pht-pseudonym-v1", str(self.version), project, use)
        return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._secret)


def new_version(version: int, now: datetime) -> KeyVersion:
    """Return a new secret under its id and version."""
    secret = secrets.token_bytes(KEY_BYTES)
    return KeyVersion(
        key_id=_key_id(secret),
        version=version,
        created_at=now,
        secret=base64.b64encode(secret).decode("ascii"),
    )


def read_key_file(path: Path) -> KeyFile:
    """Read a key file with all its versions.

    Raises:
        StateError: the file is missing, a link, readable by others, or not a key file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(
            f"pseudonym key: cannot be opened ({error.strerror})",
            hint="Run the station's init, or restore the key.",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise StateError("pseudonym key: others may read the file", hint="chmod 0600 the key file.")
        return _key_file(file.read(_MAX_KEY_FILE_BYTES + 1))


@dataclass(frozen=True, slots=True)
class ProjectKeys:
    """The sub-keys of one project, and the mappings they make."""

    patient: bytes = field(repr=False)
    uid: bytes = field(repr=False)
    date: bytes = field(repr=False)

    def pseudonym(self, issuer: str, patient_id: str) -> str:
        """Return ``P`` and 100 bits in base32 for a patient, who is (issuer, id)."""
        mac = _mac(self.patient, _joined(issuer, patient_id))
        return "P" + base64.b32encode(mac).decode("ascii")[:_PSEUDONYM_CHARACTERS]

    def remap_uid(self, uid: str) -> str:
        """Return ``2.25.`` and 128 bits as a decimal (PS3.5 B.2); UIDs the standard registers stay as they are."""
        if uid.startswith(WELL_KNOWN_UIDS):
            return uid
        return _remapped(self.uid, uid)

    def shift(self, issuer: str, patient_id: str) -> Shift:
        """Return the patient's shift: 1 to 365 whole days and 1 to 30 whole minutes, both into the past."""
        mac = _mac(self.date, _joined(issuer, patient_id))
        days = 1 + int.from_bytes(mac[:8], "big") % SHIFT_DAYS_MAX
        minutes = 1 + int.from_bytes(mac[8:16], "big") % SHIFT_MINUTES_MAX
        return Shift(days=-days, minutes=-minutes)


@lru_cache(maxsize=4096)
def _remapped(key: bytes, uid: str) -> str:
    # Study, series and frame of reference stand in every file of a series.
    return f"2.25.{int.from_bytes(_mac(key, uid.encode('utf-8'))[:16], 'big')}"


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _joined(*parts: str) -> bytes:
    # Each part after its length: ("ab", "c") and ("a", "bc") must differ.
    encoded = [part.encode("utf-8") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _key_file(data: bytes) -> KeyFile:
    try:
        return load_json(KeyFile, data, what="pseudonym key", max_bytes=_MAX_KEY_FILE_BYTES)
    except DocumentError:
        pass  # Raised anew outside the handler: pydantic's error quotes what it read, and would be its context.
    raise StateError("pseudonym key: the file is not a key", hint="Restore the key from its backup.")


def _key_id(secret: bytes) -> str:
    return hashlib.sha256(b"pht-pseudonym-key-id" + secret).hexdigest()[:16]
