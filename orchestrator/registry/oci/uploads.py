"""Uploads of the distribution API: a file per session, which outlives a cut connection and the server.

A session belongs to who began it, and to one repository; for everybody else it is not there. How many there are is bounded, of one
party and in all; one that nobody goes on with ends after a day. What arrived is what the file holds: there is no other state.
Distribution specification 1.1, "Pushing a blob in chunks".
"""

import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from orchestrator.registry.access import Principal
from orchestrator.registry.blobs import SESSIONS, StoreLimits, mark_of, require_room
from orchestrator.registry.oci.faults import OciCode, OciError
from policies.blobs import BlobFolder
from policies.documents import Digest, digest_of_file
from policies.errors import StorageError

MAX_SESSIONS: Final = 512
MAX_SESSIONS_OF_ONE: Final = 64
SESSION_LIFE_S: Final = 24 * 3600

_ID: Final = re.compile(r"[0-9a-f]{32}")


class UploadSessions:
    """The sessions of all parties, in a folder on the blobs' file system."""

    def __init__(self, blobs: Path, limits: StoreLimits) -> None:
        self._folder, self._store, self._limits = blobs / SESSIONS, BlobFolder(blobs), limits

    def begin(self, principal: Principal, repository: str) -> str:
        """Open a session; returns its id.

        Raises:
            OciError: too many are open.
            StorageError: the disk.
        """
        self.forget_stale()
        mark = mark_of(principal.id)
        with self._disk():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            open_now = [path.name.split(".")[1] for path in self._folder.glob("*.*.*")]
            if len(open_now) >= MAX_SESSIONS or open_now.count(mark) >= MAX_SESSIONS_OF_ONE:
                raise OciError(
                    OciCode.TOOMANYREQUESTS, "too many uploads are open; finish or cancel some, or wait a day"
                )
            session = secrets.token_hex(16)
            path = self._folder / f"{session}.{mark}.{mark_of(repository)}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return session

    def received(self, principal: Principal, repository: str, session: str) -> int:
        """Return how many bytes of a session are here.

        Raises:
            OciError: no such session of this party.
        """
        return self._path(principal, repository, session).stat().st_size

    @contextmanager
    def writing(
        self, principal: Principal, repository: str, session: str, offset: int | None
    ) -> Iterator["SessionWriter"]:
        """Append to a session.

        Args:
            principal: who sends.
            repository: of the session.
            session: its id.
            offset: where the bytes begin, as the request says; None where it does not say.

        Raises:
            OciError: no such session, it is being written already, or it stands elsewhere.
            StorageError: the disk.
        """
        path = self._path(principal, repository, session)
        with self._disk(), path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OciError(
                    OciCode.BLOB_UPLOAD_INVALID, "this upload is under way already", status=409
                ) from error
            here = file.seek(0, os.SEEK_END)
            if offset is not None and offset != here:
                raise OciError(OciCode.BLOB_UPLOAD_INVALID, f"the upload stands at {here} bytes", status=416)
            yield SessionWriter(file, path, self._limits)

    def finish(self, writer: "SessionWriter", digest: Digest) -> int:
        """Make a session's bytes a blob; returns its size. The session is over, also where the digest is another.

        Raises:
            OciError: the bytes are not the digest's.
        """
        size = writer.sync()
        if digest_of_file(writer.path) != digest:
            writer.path.unlink(missing_ok=True)
            raise OciError(OciCode.DIGEST_INVALID, "the bytes received do not have this digest")
        self._store.take(writer.path, digest)
        return size

    def cancel(self, principal: Principal, repository: str, session: str) -> None:
        """End a session and forget what came.

        Raises:
            OciError: no such session of this party.
        """
        self._path(principal, repository, session).unlink(missing_ok=True)

    def forget_stale(self, older_than_s: float = SESSION_LIFE_S) -> int:
        """End sessions that nobody goes on with; return how many."""
        count, limit = 0, time.time() - older_than_s
        for path in self._folder.glob("*.*.*"):
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue
        return count

    def _path(self, principal: Principal, repository: str, session: str) -> Path:
        if _ID.fullmatch(session):
            path = self._folder / f"{session}.{mark_of(principal.id)}.{mark_of(repository)}"
            if path.is_file():
                return path
        raise OciError(OciCode.BLOB_UPLOAD_UNKNOWN, "there is no such upload of yours in this repository")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"the upload cannot be stored ({error.strerror})") from error


class SessionWriter:
    """Takes a session's next bytes."""

    def __init__(self, file: BinaryIO, path: Path, limits: StoreLimits) -> None:
        self.path, self._file, self._limits = path, file, limits
        self.room: Callable[[int], None] = lambda _: None
        """Told how large the file is to be, before it is: the party's quota."""

    @property
    def position(self) -> int:
        """How many bytes are here."""
        return self._file.tell()

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OciError: the blob gets too large.
            StorageError: the disk gets too full.
        """
        if self._file.tell() + len(data) > self._limits.blob_bytes:
            raise OciError(OciCode.SIZE_INVALID, "the blob is over the limit of this registry", status=413)
        self.room(self._file.tell() + len(data))
        require_room(self.path.parent, len(data), self._limits.spare_bytes)
        self._file.write(data)

    def back_to(self, position: int) -> None:
        """Forget what came after `position`."""
        self._file.flush()
        self._file.truncate(position)
        self._file.seek(position)

    def sync(self) -> int:
        """See that everything is on the disk; return how much."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()
