"""Makes a home from a backup: every byte verified, the whole home or none of it.

1. The backup is of this version or an earlier one, and the home is empty.
2. Every file is copied beside the home and has its digest; keys are unsealed, bytes by digest taken over.
3. The database is brought to this version's tables, tokens are withdrawn, the audit says so; or all of it is copied into
   the PostgreSQL database that the settings name.
4. A note says where the home comes from, and what its operator has to do. Then the home gets its name.

Orders, revocations and publications between the backup and the restoration are unknown here afterwards. What follows
from that is in orchestrator/README.md, "After a restoration".
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from orchestrator.backup.documents import (
    BLOBS,
    HOME,
    SEALED,
    BackedBlob,
    BackupManifest,
    BlobsIn,
    KeysIn,
    RestoredNote,
    read_manifest,
    write_note,
)
from orchestrator.backup.sealing import unseal
from orchestrator.backup.taking import STATE
from orchestrator.registry.access import OPERATOR_HERE
from orchestrator.registry.audit import Action, Audit, AuditEvent
from orchestrator.settings import Home, database_location, load_settings
from orchestrator.storage import Database, TokenRow, open_database
from orchestrator.storage.copying import copy_database
from orchestrator.storage.upgrading import known_revisions
from policies.errors import NotFoundError, StateError, StorageError, TrustError, UsageError
from policies.files import sync_folder

Progress = Callable[[str, int, int], None]
_FOLDERS = (
    "blobs/sha256",
    "blobs/partial",
    "mirror/metadata",
    "mirror/targets",
    "runs",
    "logs",
    "run",
    "keys",
)
_KEYS = ("tls/ca.key", "tls/server.key", "keys/notary.pem")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore.

    Attributes:
        keep_tokens: leave tokens as they were when the backup was made, those revoked since included.
        blobs: folder of bytes by digest (`<hex>` files), for a backup that only lists them.
        passphrase: for encrypted keys.
    """

    keep_tokens: bool = False
    blobs: Path | None = None
    passphrase: str = field(default="", repr=False)


def restore_backup(
    backup: Path, path: Path, options: RestoreOptions, progress: Progress = lambda *_: None
) -> RestoredNote:
    """Restore a backup into an empty place.

    Raises:
        NotFoundError: there is no backup, or a file of it is missing.
        UsageError: there is something in the place already.
        StateError: a later version made the backup.
        TrustError: a byte is not what it was, or the passphrase is another.
        StorageError: the home cannot be written; nothing is left of it.
    """
    # 1
    manifest = read_manifest(backup)
    if manifest.tables not in known_revisions():
        raise StateError(
            f"{backup.name}: was made by a later version of this program", hint="Install that version."
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path}: there is something here already", hint="Restore into an empty folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            note = _Restoring(backup, Home(draft), manifest, options, progress).restore()
            if path.exists():
                path.rmdir()
            draft.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror})",
            hint="Nothing is left of it. Free space, and try again.",
        ) from error
    return note


class _Restoring:
    def __init__(
        self, backup: Path, home: Home, manifest: BackupManifest, options: RestoreOptions, progress: Progress
    ) -> None:
        self._backup, self._home, self._manifest = backup, home, manifest
        self._options, self._progress = options, progress

    def restore(self) -> RestoredNote:
        # 2
        os.chmod(self._home.path, 0o700)  # noqa: PTH101 - as `init` makes it
        for folder in _FOLDERS:
            (self._home.path / folder).mkdir(parents=True)
        (self._home.path / "keys").chmod(0o700)
        self._files()
        self._keys()
        missing_blobs = sum(not self._blob(blob, number) for number, blob in enumerate(self._manifest.blobs))
        # 3
        revoked, kept = self._database()
        # 4
        note = RestoredNote(
            restored=datetime.now(UTC).replace(microsecond=0),
            backup_made=self._manifest.made,
            orders=self._manifest.orders,
            mirror_timestamp=self._manifest.mirror_timestamp,
            revoked=tuple(revoked),
            kept_tokens=tuple(kept),
            missing_blobs=missing_blobs,
            missing_keys=tuple(name for name in _KEYS if not (self._home.path / name).is_file()),
        )
        write_note(self._home.path, note)
        for folder, _, _ in os.walk(self._home.path):
            sync_folder(Path(folder))
        return note

    def _files(self) -> None:
        files = self._manifest.files
        for number, file in enumerate(files):
            self._progress("files", number, len(files))
            place = self._home.path / file.path
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _copied(self._backup / HOME / file.path, place) != file.digest:
                raise TrustError(f"{file.path}: is not as it was backed up", hint="Take another backup.")
            place.chmod(file.mode)
            os.utime(place, ns=(file.modified_ns, file.modified_ns))

    def _keys(self) -> None:
        if self._manifest.keys_in is not KeysIn.ENCRYPTED:
            return
        if not self._options.passphrase:
            raise UsageError(
                "the keys are encrypted", hint="Name the file with the passphrase: --passphrase-file."
            )
        sealed = (self._backup / SEALED).read_bytes()
        for name, data in unseal(sealed, self._options.passphrase).items():
            if ".." in Path(name).parts or name.startswith("/"):
                raise TrustError(f"{SEALED}: names a file outside the home")
            place = self._home.path / name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(place, "wb", opener=_private) as file:
                file.write(data)
                os.fsync(file.fileno())

    def _blob(self, blob: BackedBlob, number: int) -> bool:
        self._progress("blobs", number, len(self._manifest.blobs))
        name = blob.digest.removeprefix("sha256:")
        included = self._manifest.blobs_in is BlobsIn.INCLUDED
        folder = self._backup / BLOBS if included else self._options.blobs
        if folder is None or (not included and not (folder / name).is_file()):
            return False
        place = self._home.blobs / "sha256" / name
        if _copied(folder / name, place) != blob.digest:
            raise TrustError(f"the blob {name[:12]} is not as it was", hint="Take another copy of it.")
        place.chmod(0o640)
        return True

    def _database(self) -> tuple[list[str], list[str]]:
        """Bring the state where the settings say; withdraw tokens. Returns the withdrawn, and those that work."""
        self._progress("database", 0, 1)
        settings = load_settings(self._home)
        location = database_location(self._home, settings)
        with closing(open_database(self._home.path / STATE)) as database:
            parties = self._tokens(database)
            if not location.is_file:
                copy_database(database, location)
        if not location.is_file:
            for suffix in ("", "-wal", "-shm"):
                (self._home.path / f"{STATE}{suffix}").unlink(missing_ok=True)
        return ([], parties) if self._options.keep_tokens else (parties, [])

    def _tokens(self, database: Database) -> list[str]:
        now = datetime.now(UTC)
        with database.transaction() as session:
            rows = session.scalars(select(TokenRow).where(TokenRow.revoked.is_(None))).all()
            if not self._options.keep_tokens:
                for row in rows:
                    row.revoked = now
            Audit(database).append_in(
                session,
                AuditEvent(
                    action=Action.RESTORED,
                    who=OPERATOR_HERE.id,
                    about=f"backup of {self._manifest.made:%Y-%m-%dT%H:%M:%SZ}, "
                    f"{len(rows)} tokens {'kept' if self._options.keep_tokens else 'withdrawn'}",
                ),
            )
            return sorted({f"{row.role}:{row.name}" for row in rows})


def _copied(path: Path, place: Path) -> str:
    """Copy a file; return the digest of what was written."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as source, open(place, "wb", opener=_private) as target:
            while piece := source.read(_PIECE_BYTES):
                found.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
    except FileNotFoundError as error:
        if path.exists():
            raise
        raise NotFoundError(f"{path.name}: is missing in the backup", hint="Take another backup.") from error
    return "sha256:" + found.hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
