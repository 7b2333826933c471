"""An append-only, hash-chained audit in one file, for the tool that has no database: it lies beside the key.

The chain is `station.audit.chain`'s: a line is the canonical JSON of an entry that carries its number and the digest of the
line before it. The whole chain is checked before a line is added, and the line is durable before what it tells of
happens (I6).
"""

import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from policies.documents import canonical_json, digest_of, format_moment
from policies.errors import StateError
from policies.files import sync_folder
from station.audit.chain import EMPTY, ChainBreak, ChainHead, Link, verify_links
from station.storage.files import storage_fault

CHAIN = "pseudonymisation-tool"
MAX_BYTES = 64 << 20


class ToolEvent(StrEnum):
    """Everything the tool audits."""

    RUN_BEGUN = "tool.run.begun"
    RUN_FINISHED = "tool.run.finished"
    MAPPING_WRITTEN = "tool.mapping.written"


def audit_path(key: Path) -> Path:
    """Return where the audit of a key lies."""
    return key.with_name(key.name + ".audit.jsonl")


def append(path: Path, event: ToolEvent, fields: dict[str, str | int], *, now: datetime) -> ChainHead:
    """Add an entry, durably.

    Raises:
        StateError: the chain that stands there is broken, a link, or readable by others.
        StorageError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_fault(error, path.name) from None
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_mode & 0o077:
            raise StateError("the tool's audit: others may read it", hint="chmod 0600 the file.")
        head = _verified(file.read(MAX_BYTES + 1))
        body = canonical_json(
            {
                "at": format_moment(now),
                "event": event.value,
                "fields": dict(fields),
                "chain": CHAIN,
                "seq": head.seq + 1,
                "previous": head.digest,
            }
        )
        try:
            file.write(body + b"\n")
            file.flush()
            os.fsync(descriptor)
            sync_folder(path.parent)
        except OSError as error:
            raise storage_fault(error, path.name) from None
    return ChainHead(head.seq + 1, digest_of(body))


def verify(path: Path) -> ChainHead:
    """Check the whole chain of a file; an absent one is empty.

    Raises:
        StateError: it is broken.
    """
    return _verified(path.read_bytes()) if path.exists() else EMPTY


def _verified(data: bytes) -> ChainHead:
    if len(data) > MAX_BYTES:
        raise StateError("the tool's audit is too long", hint="Put it away with its key, and begin anew.")
    if data and not data.endswith(b"\n"):
        raise StateError("the tool's audit was cut off", hint="Keep the file and call the security officer.")
    verdict = verify_links(CHAIN, _links(data))
    if isinstance(verdict, ChainBreak):
        raise StateError(
            f"the tool's audit is broken at entry {verdict.seq}: {verdict.problem}",
            hint="Keep the file as it is and call the hospital's security officer.",
        )
    return verdict.value


def _links(data: bytes) -> Iterator[Link]:
    for number, body in enumerate(data.splitlines(), start=1):
        yield Link(number, body, digest_of(body))
