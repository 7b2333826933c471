"""A chain as a file that an auditor checks without the station: one entry per line, a signed head as the last line.

Each line is the entry's very bytes, so that a digest computed over a line is the digest the next line names. The head line
is ``{"head": <DSSE envelope>}``; a file without one ends where its writer says, and only a head kept elsewhere can tell
more.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.documents import digest_of
from policies.errors import StorageError
from policies.refusals import Permitted
from station.audit.chain import EMPTY, MAX_BODY_BYTES, Chain, ChainBreak, ChainHead, Link, verify_links
from station.audit.heads import MAX_HEAD_BYTES, open_head
from station.audit.log import AUDIT_CHAIN
from station.storage.database import Database
from station.storage.files import storage_fault, sync_folder

_HEAD_PREFIX = b'{"head":'
_MAX_LINE = max(MAX_BODY_BYTES, MAX_HEAD_BYTES + 64) + 1


def export(
    database: Database,
    out: Path,
    sign: Callable[[ChainHead], bytes] | None = None,
    chain: Chain = AUDIT_CHAIN,
) -> ChainHead:
    """Write a chain to a JSON Lines file, in one consistent view.

    Args:
        database: the station's compute database.
        out: the file to write, whole or not at all.
        sign: makes the envelope of a head (`sign_head` with the station's key); without it the file ends unsigned.
        chain: the audit, unless told.

    Returns:
        The head of what was written.

    Raises:
        StorageError: the file cannot be written.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    head = EMPTY
    try:
        with temporary.open("wb") as file:
            with database.read() as session:
                for link in chain.links(session):
                    file.write(link.body + b"\n")
                    head = ChainHead(link.seq, link.digest)
            if sign is not None:
                file.write(_HEAD_PREFIX + sign(head) + b"}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_fault(error, out.name) from error
    return head


def verify_export(
    path: Path,
    key: Ed25519PublicKey | None = None,
    known: ChainHead | None = None,
    chain: str = AUDIT_CHAIN.name,
) -> Permitted[ChainHead] | ChainBreak:
    """Check an exported file from its first line.

    Args:
        path: the file.
        key: the station's identity key; the file must then end in a head signed by it, of this chain and these entries.
        known: a head kept elsewhere that the file must reach and hold.
        chain: the chain's name.

    Raises:
        StorageError: the file cannot be read.
        TrustError: the head line is not signed by `key`.
    """
    try:
        with path.open("rb") as file:
            lines = _Lines(file)
            result = verify_links(chain, lines.links(), known)
            if isinstance(result, ChainBreak):
                return result
            return _check_end(lines, result, key, chain)
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be read ({error.strerror})") from error


def _check_end(
    lines: "_Lines", result: Permitted[ChainHead], key: Ed25519PublicKey | None, chain: str
) -> Permitted[ChainHead] | ChainBreak:
    end = result.value.seq + 1
    if lines.trailing:
        return ChainBreak(end, "bytes stand behind the signed head")
    if key is None:
        return result
    if lines.head is None:
        return ChainBreak(end, "the file does not end in a signed head")
    signed = open_head(lines.head, key)
    if signed.chain != chain:
        return ChainBreak(end, "the signed head is of another chain")
    if signed.head != result.value:
        return ChainBreak(
            min(end, signed.seq + 1), f"the signed head is of {signed.seq} entries, the file holds others"
        )
    return result


class _Lines:
    """Reads an export's lines under a ceiling and keeps its head line apart."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.head: bytes | None = None
        self.trailing = False

    def links(self) -> Iterator[Link]:
        number = 0
        while line := self._file.readline(_MAX_LINE):
            body = line.removesuffix(b"\n")
            if body.startswith(_HEAD_PREFIX) and body.endswith(b"}"):
                self.head = body[len(_HEAD_PREFIX) : -1]
                self.trailing = bool(self._file.read(1))
                return
            number += 1
            # A line without its end, or one over the ceiling, is not an entry as written: its digest is left empty.
            yield Link(number, body, digest_of(body) if line.endswith(b"\n") else "")
