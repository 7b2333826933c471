"""Takes a backup of a home, also while it serves. It only reads there.

In this order, so that what is copied later holds at least what was copied earlier names:

1. our own database, one consistent state (a snapshot, or a repeatable-read copy from PostgreSQL);
2. the SuperLink's database (its nodes are at least those that ours knows);
3. the run of each order in 1, its files of one moment, with the weights it goes on from;
4. settings, certificates, trust, mirror, the witness's document; private keys as asked;
5. the other bytes by digest, each hashed as it is copied;
6. the manifest; then the folder gets its name. Before that there is no backup.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from orchestrator.backup.documents import (
    BLOBS,
    HOME,
    MANIFEST,
    NOTE,
    SEALED,
    BackedBlob,
    BackedFile,
    BackupManifest,
    BlobsIn,
    KeysIn,
)
from orchestrator.backup.runs import Files, is_whole, needed_blobs, read_run
from orchestrator.backup.sealing import seal
from orchestrator.federation.orders import RunFolder
from orchestrator.settings import Home, database_location, load_settings
from orchestrator.storage import Database
from orchestrator.storage.copying import snapshot, snapshot_facts, snapshot_file
from policies.documents import canonical_json, digest_of, parse_json
from policies.errors import PhtError, StateError, StorageError, UsageError
from policies.files import sync_folder

Progress = Callable[[str, int, int], None]
"""What is being copied, how many bytes are done, of how many."""

STATE: Final = "state.db"
SUPERLINK: Final = "superlink/superlink.db"
_SKIPPED: Final = frozenset({"run", "logs", "blobs", "runs", "mirror", NOTE})
_SUPERLINK_KEPT: Final = frozenset({"tls", "superexec.secret"})
_KEY_NAMES: Final = (".key", ".secret")
_PIECE_BYTES: Final = 1 << 20
_RUN_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What to put in.

    Attributes:
        blobs: whether bytes by digest go along, or are listed.
        keys: how private keys go along.
        passphrase: for encrypted keys.
    """

    blobs: BlobsIn = BlobsIn.INCLUDED
    keys: KeysIn = KeysIn.INCLUDED
    passphrase: str = field(default="", repr=False)


def take_backup(
    home: Home, out: Path, options: BackupOptions, progress: Progress = lambda *_: None
) -> BackupManifest:
    """Take a backup into a new folder `out`.

    Raises:
        NotFoundError: there is no home.
        UsageError: `out` is there already, or lies in the home.
        StorageError: it cannot be written; nothing is left of it.
        StateError, UnavailableError: the home is damaged, or its database away.
    """
    settings = load_settings(home)
    if out.exists():
        raise UsageError(f"{out}: is there already", hint="Name a new folder for each backup.")
    if home.path.resolve() in out.resolve().parents:
        raise UsageError(f"{out}: lies in the home that it is to save", hint="Name a folder on another disk.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            with closing(Database(database_location(home, settings))) as database:
                taken = _Taking(home, draft, options, progress).take(database)
            draft.rename(out)
            sync_folder(out.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"{out}: cannot be written ({error.strerror})",
            hint="Nothing is left of it. Free space, and try again.",
        ) from error
    return taken


class _Taking:
    def __init__(self, home: Home, draft: Path, options: BackupOptions, progress: Progress) -> None:
        self._home, self._draft, self._options, self._progress = home, draft, options, progress
        self._files: dict[str, BackedFile] = {}
        self._blobs: dict[str, BackedBlob] = {}
        self._keys: dict[str, bytes] = {}

    def take(self, database: Database) -> BackupManifest:
        made = datetime.now(UTC).replace(microsecond=0)
        (self._draft / HOME).mkdir(mode=0o700)
        (self._draft / BLOBS).mkdir(mode=0o700)
        # 1, 2
        orders, tables = self._databases(database)
        # 3
        for number, digest in enumerate(orders):
            self._progress("runs", number, len(orders))
            self._run(digest)
        # 4
        self._mirror()
        for path in self._plain_files():
            self._file(path)
        sealed = self._seal() if self._options.keys is KeysIn.ENCRYPTED else None
        # 5
        self._other_blobs()
        # 6
        manifest = BackupManifest(
            made=made,
            program=_program(),
            tables=tables,
            files=tuple(self._files[path] for path in sorted(self._files)),
            blobs_in=self._options.blobs,
            blobs=tuple(self._blobs[digest] for digest in sorted(self._blobs)),
            keys_in=self._options.keys,
            sealed=sealed,
            orders=len(orders),
            mirror_timestamp=timestamp_version(self._home.mirror),
        )
        _write_synced(self._draft / MANIFEST, canonical_json(manifest) + b"\n")
        for folder, _, _ in os.walk(self._draft):
            sync_folder(Path(folder))
        return manifest

    def _databases(self, database: Database) -> tuple[list[str], str]:
        self._progress("database", 0, 1)
        place = self._draft / HOME / STATE
        snapshot(database, place)
        self._note(STATE, place, 0o600)
        orders, tables = snapshot_facts(place)
        flower = self._home.path / SUPERLINK
        if flower.is_file():
            place = self._draft / HOME / SUPERLINK
            place.parent.mkdir(mode=0o700, parents=True)
            snapshot_file(flower, place)
            self._note(SUPERLINK, place, 0o600)
        return orders, tables

    def _run(self, digest: str) -> None:
        """A run with the weights it goes on from: where those went meanwhile, the run went on, and is read again."""
        place = self._draft / HOME / "runs" / digest.removeprefix("sha256:")
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        files: Files = {}
        for _ in range(_RUN_TRIES):
            before, files = files, read_run(self._home.run_folder(digest))
            if not is_whole(files):
                raise StateError(f"the run {digest[7:19]} has no order.json")
            for path in list(place.iterdir()):
                path.unlink()
            for name, (data, modified_ns, _) in files.items():
                _write_synced(place / name, data)
                os.utime(place / name, ns=(modified_ns, modified_ns))
            here = [self._blob(blob) for blob in sorted(needed_blobs(RunFolder(place)))]
            # Gone, and the run did not go on: it has lacked them before.
            if all(here) or files == before:
                break
        for name, (_, _, mode) in files.items():
            self._note(f"runs/{place.name}/{name}", place / name, mode)
        for path in sorted((self._home.run_folder(digest) / "result").glob("*")):
            if path.is_file() and not path.name.startswith("."):
                self._file(path)

    def _mirror(self) -> None:
        """The mirror as one publication left it: its timestamp is written last, and makes the rest count."""
        for _ in range(_RUN_TRIES):
            before = timestamp_version(self._home.mirror)
            shutil.rmtree(self._draft / HOME / "mirror", ignore_errors=True)
            for path in sorted(self._home.mirror.rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    self._file(path)
            if timestamp_version(self._home.mirror) == before:
                return

    def _plain_files(self) -> Iterator[Path]:
        tops = [path for path in sorted(self._home.path.iterdir()) if path.name not in _SKIPPED]
        for path in (found for top in tops for found in (sorted(top.rglob("*")) if top.is_dir() else [top])):
            parts = path.relative_to(self._home.path).parts
            if parts[0].startswith((STATE, ".")) or path.name.startswith("."):
                continue
            if parts[0] == "superlink" and (len(parts) < 2 or parts[1] not in _SUPERLINK_KEPT):
                continue
            if path.is_symlink() or not path.is_file():
                continue
            if parts[0] == "keys" or path.name.endswith(_KEY_NAMES):
                if self._options.keys is KeysIn.ENCRYPTED:
                    self._keys["/".join(parts)] = path.read_bytes()
                if self._options.keys is not KeysIn.INCLUDED:
                    continue
            elif parts[0] == "superlink" and self._options.keys is KeysIn.LEFT_OUT:
                # Its certificates are nothing without their key; both are made anew at the next start.
                continue
            yield path

    def _file(self, path: Path) -> None:
        name = path.relative_to(self._home.path).as_posix()
        place = self._draft / HOME / name
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        _, digest, size = _copied(path, place)
        os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))
        self._files[name] = BackedFile(
            path=name, digest=digest, size=size, mode=status.st_mode & 0o777, modified_ns=status.st_mtime_ns
        )

    def _note(self, name: str, place: Path, mode: int) -> None:
        status = place.stat()
        with place.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        self._files[name] = BackedFile(
            path=name, digest=digest, size=status.st_size, mode=mode, modified_ns=status.st_mtime_ns
        )

    def _seal(self) -> str:
        sealed = seal(self._keys, self._options.passphrase)
        _write_synced(self._draft / SEALED, sealed)
        return digest_of(sealed)

    def _other_blobs(self) -> None:
        folder = self._home.blobs / "sha256"
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for number, name in enumerate(names):
            self._progress("blobs", number, len(names))
            if len(name) == 64:
                self._blob(f"sha256:{name}")
        self._progress("blobs", len(names), len(names))

    def _blob(self, digest: str) -> bool:
        """Copy or list a blob; False where it is gone."""
        if digest in self._blobs:
            return True
        path = self._blob_path(digest)
        try:
            if self._options.blobs is BlobsIn.LISTED:
                size = path.stat().st_size
            else:
                # It never changes, and may go: opened, it stays readable.
                place = self._draft / BLOBS / digest.removeprefix("sha256:")
                _, found, size = _copied(path, place)
                if found != digest:
                    raise StateError(
                        f"the blob {digest[7:19]} is damaged",
                        hint="Send it again, or remove it; then back up again.",
                    )
        except FileNotFoundError:
            return False
        self._blobs[digest] = BackedBlob(digest=digest, size=size)
        return True

    def _blob_path(self, digest: str) -> Path:
        return self._home.blobs / "sha256" / digest.removeprefix("sha256:")


def timestamp_version(mirror: Path) -> int:
    """Return the version of a mirror's timestamp; 0 where there is none."""
    try:
        data = (mirror / "metadata" / "timestamp.json").read_bytes()
        return int(parse_json(data, what="timestamp.json")["signed"]["version"])
    except (OSError, PhtError, KeyError, TypeError, ValueError):
        return 0


def _copied(path: Path, place: Path) -> tuple[Path, str, int]:
    """Copy a file and hash what was read; returns place, digest and size."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as source, open(place, "xb", opener=_private) as target:
        while piece := source.read(_PIECE_BYTES):
            found.update(piece)
            target.write(piece)
            size += len(piece)
        target.flush()
        os.fsync(target.fileno())
    return place, "sha256:" + found.hexdigest(), size


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _program() -> str:
    try:
        return version("pht-radiology")
    except PackageNotFoundError:
        return "0"
