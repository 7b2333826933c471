"""The pack as a file: a zip that is a function of what is in it, so that every byte of it is accounted for.

Members lie in the order of their names, stored as they are (nothing to inflate), with one fixed date. So a reader writes
the zip again from what it read and compares: a byte that differs, also one between the members, is found and located.
"""

import os
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from policies.errors import DocumentError, StorageError
from policies.evidence.statement import MAX_FILES, MAX_STATEMENT_ENVELOPE_BYTES
from policies.files import sync_folder

CRATE = "ro-crate-metadata.json"
STATEMENT = "statement.dsse.json"
ORDER = "order.dsse.json"
POLICY = "policy.yaml"
TRAIN = "train.yaml"
LEDGER = "egress.jsonl"
DIGESTS = "egress-digests.txt"
TRUST = "trust/"
TARGETS = "trust/targets/"

MAX_PACK_BYTES = 1 << 30
MAX_MEMBER_BYTES = MAX_STATEMENT_ENVELOPE_BYTES
"""Of a member that is read as a whole; the ledger's two files are read as streams."""

MAX_DIRECTORY_BYTES = MAX_FILES * 512
"""What a reader makes an object of each entry of; a pack's own names are far shorter."""

_END = struct.Struct("<4s4H2LH")
"""The end of a zip's directory, as APPNOTE 4.3.16 has it; a pack has no comment behind it."""

_LOCATOR_BYTES = 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_MODE = 0o100644


class PackDamageError(DocumentError):
    """The pack is not what its writer made; says where.

    Attributes:
        where: the member, or the part of the container.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}", hint="Ask the hospital for the pack again.")
        self.where = where
        self.problem = problem


def write_zip(out: IO[bytes], members: Mapping[str, bytes | Path]) -> None:
    """Write a pack's members; files are streamed.

    Args:
        out: a new, seekable file.
        members: content, or the file that holds it, by place in the pack.
    """
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            content = members[name]
            with archive.open(_info(name), "w") as target:
                if isinstance(content, bytes):
                    target.write(content)
                else:
                    with content.open("rb") as source:
                        while chunk := source.read(_CHUNK):
                            target.write(chunk)


def write_pack(out: Path, members: Mapping[str, bytes | Path]) -> None:
    """Write a pack whole or not at all.

    Raises:
        StorageError: it cannot be written; what was there before is untouched.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        with os.fdopen(descriptor, "w+b") as file:
            write_zip(file, members)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(out)
        sync_folder(out.parent)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
        raise StorageError(f"{out.name}: cannot be written ({error.strerror})") from error


class Pack:
    """An open pack, untrusted: its container is in order, and nothing is said about its content."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = tuple(info.filename for info in archive.infolist())

    def read(self, name: str) -> bytes:
        """Return a member's bytes.

        Raises:
            PackDamageError: it is missing or too large.
        """
        try:
            info = self._archive.getinfo(name)
        except KeyError as error:
            raise PackDamageError(name, "is missing") from error
        if info.file_size > MAX_MEMBER_BYTES:
            raise PackDamageError(name, f"is larger than {MAX_MEMBER_BYTES} bytes")
        return self._archive.read(info)

    def open(self, name: str) -> IO[bytes]:
        """Open a member to read it as a stream.

        Raises:
            PackDamageError: it is missing.
        """
        try:
            return self._archive.open(name)
        except KeyError as error:
            raise PackDamageError(name, "is missing") from error

    def size(self, name: str) -> int:
        """Return a member's length in bytes."""
        return self._archive.getinfo(name).file_size


@contextmanager
def open_pack(path: Path) -> Iterator[Pack]:
    """Open a pack and account for every byte of its container.

    Raises:
        PackDamageError: it is not a pack as `write_pack` makes them; says where.
        StorageError: the file cannot be read.
    """
    try:
        if path.stat().st_size > MAX_PACK_BYTES:
            raise PackDamageError("the container", f"is larger than {MAX_PACK_BYTES} bytes")
        with path.open("rb") as file:
            _check_directory(file)
            try:
                archive = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise PackDamageError("the container's directory", "is not that of a zip file") from error
            with archive:
                _check_container(archive, file)
                yield Pack(archive)
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be read ({error.strerror})") from error


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_STORED
    info.create_system = 3
    info.external_attr = _MODE << 16
    return info


def _check_directory(file: IO[bytes]) -> None:
    """Bound the directory by what its end says, before anything is made of its entries."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    tail = file.read()
    if len(tail) < _END.size:
        raise PackDamageError("the container's directory", "is not that of a zip file")
    signature, *_, entries, length, _, comment = _END.unpack(tail[-_END.size :])
    # The larger form of a zip, which would say other numbers, has its locator right before the end.
    if signature != b"PK\x05\x06" or comment or tail.startswith(b"PK\x06\x07"):
        raise PackDamageError("the container's directory", "is not that of a zip file")
    if entries > MAX_FILES or length > MAX_DIRECTORY_BYTES:
        raise PackDamageError("the container's directory", "lists too many files, or one twice")


def _check_container(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(infos) > MAX_FILES or len(set(names)) != len(names):
        raise PackDamageError("the container's directory", "lists too many files, or one twice")
    if sum(info.file_size for info in infos) > MAX_PACK_BYTES:
        raise PackDamageError("the container's directory", "lists more bytes than a pack holds")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
        raise PackDamageError("the container's directory", "lists a file that is not stored as it is")
    with tempfile.TemporaryFile() as again:
        _write_again(archive, again)
        offset = _first_difference(file, again)
        if offset is not None:
            raise PackDamageError(_where(again, offset), f"differs from what belongs there, at byte {offset}")


def _write_again(archive: zipfile.ZipFile, again: IO[bytes]) -> None:
    with zipfile.ZipFile(again, "w", zipfile.ZIP_STORED) as copy:
        for name in sorted(archive.namelist()):
            try:
                with archive.open(name) as source, copy.open(_info(name), "w") as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
            except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
                raise PackDamageError(name, "its bytes are not those that were written") from error


def _first_difference(one: IO[bytes], other: IO[bytes]) -> int | None:
    one.seek(0)
    other.seek(0)
    offset = 0
    while True:
        left, right = one.read(_CHUNK), other.read(_CHUNK)
        if left != right:
            same = next(
                (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
                min(len(left), len(right)),
            )
            return offset + same
        if not left:
            return None
        offset += len(left)


def _where(again: IO[bytes], offset: int) -> str:
    """Name the member whose bytes lie at an offset of the container as it should be."""
    with zipfile.ZipFile(again) as archive:
        before = [info for info in archive.infolist() if info.header_offset <= offset]
        if not before or offset >= archive.start_dir:
            return "the container's directory"
        return max(before, key=lambda info: info.header_offset).filename
