"""The log of signed, sequenced, hash-linked entries: intake writes it, compute verifies and reads it."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from policies.documents import canonical_json, digest_of, load_json, parse_json
from policies.errors import DocumentError, PhtError, StateError
from station.handover.entries import Content, HandoverEntry
from station.handover.files import HandoverError, make_folder, read_plain_file
from station.storage.files import write_atomically

GENESIS = "sha256:" + "0" * 64
"""What the first entry names as the entry before it."""

MAX_ENTRY_BYTES = 64 << 20

_PAYLOAD_TYPE = "application/vnd.pht.handover.{kind}+json;version=1"

_ENTRY_FILE = re.compile(r"^([0-9]{8})\.json$")


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry whose signature, sequence and hash link held; made by `read_handover` and `HandoverLog` only."""

    sequence: int
    digest: str
    operation: str
    written_at: datetime
    content: Content


class HandoverLog:
    """The writer's side; intake alone holds the private key.

    Args:
        directory: the handover folder; its subfolders are made when missing.
        private_key: the hospital's handover key.
    """

    def __init__(self, directory: Path, private_key: Ed25519PrivateKey) -> None:
        self._directory = directory
        self._log = directory / "log"
        make_folder(directory)
        make_folder(self._log)
        self._public_key = private_key.public_key()
        self._signer = CryptoSigner(private_key, SSlibKey.from_crypto(self._public_key))

    def append(self, content: Content, operation: str, *, now: datetime) -> VerifiedEntry:
        """Write the next entry durably; the same operation again returns the entry that stands.

        Args:
            content: what to hand over.
            operation: the caller's own name for this step; only the last entry is compared, so a caller that may
                crash between append and its own commit repeats its last step first.
            now: the moment to write into the entry.

        Raises:
            HandoverError: the entry before does not verify.
            StorageError: the entry cannot be written; the log is as before.
        """
        with self._locked():
            last = self.last()
            if last is not None and last.operation == operation:
                return last
            sequence, previous = (last.sequence + 1, last.digest) if last else (1, GENESIS)
            entry = HandoverEntry(
                sequence=sequence, previous=previous, operation=operation, written_at=now, content=content
            )
            payload = canonical_json(entry)
            envelope = Envelope(payload, _PAYLOAD_TYPE.format(kind=content.kind), {})
            envelope.sign(self._signer)
            data = canonical_json(envelope.to_dict())
            if len(data) > MAX_ENTRY_BYTES:
                raise StateError(f"handover: an entry of {len(data)} bytes is over {MAX_ENTRY_BYTES}")
            write_atomically(self._log / f"{sequence:08d}.json", data, 0o640)
        return _verified(entry, data)

    def last(self) -> VerifiedEntry | None:
        """Return the newest entry, verified on its own, or None when the log is empty."""
        numbers = _sequences(self._log)
        if not numbers:
            return None
        return _read_entry(self._log, numbers[-1], self._public_key)[0]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._log / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_handover(
    directory: Path, public_key: Ed25519PublicKey, after_seq: int = 0, after_digest: str | None = None
) -> Iterator[VerifiedEntry]:
    """Verify and yield the entries after `after_seq`, in order.

    1. No sequence is missing, and the log reaches at least `after_seq` (a log that went back is refused).
    2. The signature is the hospital's, over a payload type that fits the kind.
    3. The entry carries its own sequence and the digest of the file before it.

    Args:
        directory: the handover folder.
        public_key: intake's key as compute pinned it, see `load_public_key`.
        after_seq: the last sequence the reader has already taken up; 0 for none.
        after_digest: the digest of that entry as the reader remembers it; without it the stored file is taken.

    Raises:
        HandoverError: on a gap, a log that went back, a bad signature or a bad hash link. Entries yielded before
            the fault are good.
    """
    log = directory / "log"
    numbers = [number for number in _sequences(log) if number >= max(after_seq, 1)]
    if after_seq and (not numbers or numbers[0] != after_seq):
        raise HandoverError(f"handover log: entry {after_seq} was read before and is gone")
    expected = list(range(max(after_seq, 1), max(after_seq, 1) + len(numbers)))
    if numbers != expected:
        missing = next(want for want, have in zip(expected, numbers, strict=True) if want != have)
        raise HandoverError(f"handover log: entry {missing} is missing")
    previous = GENESIS
    if after_seq:
        stored = _read_entry(log, after_seq, public_key)[0].digest
        if after_digest is not None and stored != after_digest:
            raise HandoverError(f"handover log: entry {after_seq} is not the one read before")
        previous = stored
        numbers = numbers[1:]
    for number in numbers:
        verified, link = _read_entry(log, number, public_key)
        if link != previous:
            raise HandoverError(f"handover log: entry {number} does not follow entry {number - 1}")
        previous = verified.digest
        yield verified


def _sequences(log: Path) -> list[int]:
    try:
        names = [path.name for path in log.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _ENTRY_FILE.match(name)))


def _read_entry(log: Path, number: int, public_key: Ed25519PublicKey) -> tuple[VerifiedEntry, str]:
    """Return the entry and the digest it names as the one before it."""
    what = f"handover entry {number}"
    data = read_plain_file(log / f"{number:08d}.json", MAX_ENTRY_BYTES, what)
    payload, payload_type = _open_envelope(data, public_key, what)
    try:
        entry = load_json(HandoverEntry, payload, what=what, max_bytes=MAX_ENTRY_BYTES)
    except DocumentError as error:
        raise HandoverError(f"{what}: is signed but is not an entry") from error
    if payload_type != _PAYLOAD_TYPE.format(kind=entry.content.kind):
        raise HandoverError(f"{what}: the payload type does not fit the content")
    if entry.sequence != number:
        raise HandoverError(f"{what}: carries the sequence {entry.sequence}")
    return _verified(entry, data), entry.previous


def _open_envelope(data: bytes, public_key: Ed25519PublicKey, what: str) -> tuple[bytes, str]:
    try:
        document = parse_json(data, what=what, max_bytes=MAX_ENTRY_BYTES)
        envelope = Envelope.from_dict(document)
        envelope.verify([SSlibKey.from_crypto(public_key)], 1)
    except (PhtError, VerificationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise HandoverError(f"{what}: the signature does not verify") from error
    return envelope.payload, envelope.payload_type


def _verified(entry: HandoverEntry, data: bytes) -> VerifiedEntry:
    return VerifiedEntry(
        sequence=entry.sequence,
        digest=digest_of(data),
        operation=entry.operation,
        written_at=entry.written_at.astimezone(UTC),
        content=entry.content,
    )
