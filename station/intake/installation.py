"""Makes intake's folders, keys, token and database. A key that exists is never replaced."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.errors import StateError
from policies.signing import generate_key
from station.intake.paths import IntakePaths
from station.pseudonymisation.keys import PseudonymKey
from station.storage.database import open_database
from station.storage.files import storage_fault, write_atomically

MIGRATIONS = Path(__file__).parent / "migrations"
_TOKEN_BYTES = 32


def init_intake(home: Path) -> IntakePaths:
    """Make what intake needs under the station's home; what is there already stays as it is.

    Raises:
        StorageError: a folder or file cannot be written.
        StateError: a key that is there cannot be read, or the database is damaged.
    """
    paths = IntakePaths(home)
    _folder(paths.root, 0o700)
    for folder in (paths.keys, paths.spool, paths.quarantine):
        _folder(folder, 0o700)
    for folder in (paths.handover, paths.handover / "log", paths.handover / "instances"):
        _folder(folder, 0o750)
    if not paths.run.is_dir():
        _folder(paths.run, 0o750)
    if paths.pseudonym_key.exists():
        PseudonymKey.load(paths.pseudonym_key)
    else:
        PseudonymKey.generate(paths.pseudonym_key, now=datetime.now(UTC))
    if not paths.handover_key.exists():
        generate_key(paths.handover_key)
    public = load_handover_key(paths).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_atomically(paths.handover_public_key, pem, 0o644)
    if not paths.token.exists():
        write_atomically(paths.token, secrets.token_hex(_TOKEN_BYTES).encode("ascii"), 0o600)
    open_database(paths.database, MIGRATIONS).close()
    return paths


def load_handover_key(paths: IntakePaths) -> Ed25519PrivateKey:
    """Read the key that signs the handover.

    Raises:
        StateError: it is missing, readable by others, or not an Ed25519 key.
    """
    try:
        if paths.handover_key.stat().st_mode & 0o077:
            raise StateError("handover key: others may read the file", hint="chmod 0600 the key file.")
        key = serialization.load_pem_private_key(paths.handover_key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise StateError("handover key: cannot be read", hint="Run the station's init.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError("handover key: is not an Ed25519 key")
    return key


def _folder(path: Path, mode: int) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        os.chmod(path, mode)  # noqa: PTH101 - whatever the umask
    except OSError as error:
        raise storage_fault(error, path.name) from error
