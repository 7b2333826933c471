"""The handover: the one way by which data leaves intake for compute (invariant I9).

Intake appends entries to a log of signed, sequenced, hash-linked files; compute verifies and reads them. Nothing
flows back, so this module knows neither intake's database nor the catalogue. It holds no identified value: an
entry names patients, studies and files by pseudonym and digest only.

    <home>/handover/handover.pub                     Ed25519 public key, PEM
    <home>/handover/instances/<aa>/<sha256>.dcm      pseudonymised files, named by their content
    <home>/handover/labels/<aa>/<sha256>             masks, named by their content
    <home>/handover/log/<8-digit sequence>.json      DSSE envelopes (securesystemslib) over canonical JSON

Invariants: sequences start at 1 and have no gap; every entry carries the digest of the file before it; a file that
verified once never changes; an entry appended twice under one operation is written once (invariant I8).
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from policies.documents import (
    Digest,
    Moment,
    Name,
    Sequence,
    StrictModel,
    canonical_json,
    digest_of,
    load_json,
    parse_json,
)
from policies.errors import DocumentError, PhtError, StateError, TrustError
from policies.profiles import ClinicalValue, FieldName, ProfileId
from station.storage.files import storage_fault, sync_folder, write_atomically

GENESIS = "sha256:" + "0" * 64
"""What the first entry names as the entry before it."""

MAX_ENTRY_BYTES = 64 << 20
MAX_INSTANCE_BYTES = 4 << 30
_PAYLOAD_TYPE = "application/vnd.pht.handover.{kind}+json;version=1"
_ENTRY_FILE = re.compile(r"^([0-9]{8})\.json$")

PatientPseudonym = Annotated[str, Field(pattern=r"^P[A-Z2-7]{20}$")]
"""``P`` and 100 bits of a keyed hash in base32."""

RemappedUid = Annotated[str, Field(pattern=r"^2\.25\.[1-9][0-9]{0,38}$")]
WellKnownUid = Annotated[str, Field(pattern=r"^[0-2](?:\.(?:0|[1-9][0-9]*))+$", max_length=64)]
Code = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{0,16}$")]
"""A DICOM code string; empty where the file has none."""

Term = Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._+/()-]{0,64}$")]
"""Text that the pseudonymisation let pass, such as a manufacturer's name; empty where there is none."""

Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class HandoverError(TrustError):
    """The handover log does not verify: a gap, a bad signature, a bad hash link or a file that is not itself."""


class Acquisition(StrictModel):
    """How an instance was acquired, for the hospital's own queries; after pseudonymisation, so nothing here is identified.

    Attributes:
        study_year: of the shifted Study Date.
        image_type: the first four values.
        recognizable_face: whether a face could be rebuilt from its series (thin head CT); None where nobody looked.
        pixels: whether burned-in text was looked for, and masked.
    """

    manufacturer: Term = ""
    model: Term = ""
    kernel: Term = ""
    slice_thickness_mm: Annotated[float, Field(ge=0, le=1000)] | None = None
    study_year: Annotated[int, Field(ge=1000, le=9999)] | None = None
    rows: Annotated[int, Field(ge=1, le=65_535)] | None = None
    columns: Annotated[int, Field(ge=1, le=65_535)] | None = None
    image_type: Sequence[Code] = ()
    recognizable_face: bool | None = None
    pixels: Literal["not-inspected", "inspected", "masked"] = "not-inspected"


class InstanceRecord(StrictModel):
    """One pseudonymised instance that compute may take up; replaces an earlier record of the same instance."""

    file: Digest
    size_bytes: Annotated[int, Field(ge=1, le=MAX_INSTANCE_BYTES)]
    collection: Name
    patient: PatientPseudonym
    study_uid: RemappedUid
    series_uid: RemappedUid
    sop_instance_uid: RemappedUid
    sop_class_uid: WellKnownUid
    transfer_syntax_uid: WellKnownUid
    modality: Code
    body_part: Code
    view_position: Code
    acquisition: Acquisition = Acquisition()


class Removal(StrictModel):
    """An instance that compute may use no longer, and why."""

    collection: Name
    sop_instance_uid: RemappedUid
    reason: Literal["rejected", "deleted", "quarantined", "retention"]


class Merge(StrictModel):
    """A patient who was known under two pseudonyms; `patient` is from now on `into`, everywhere."""

    patient: PatientPseudonym
    into: PatientPseudonym


class LabelRecord(StrictModel):
    """A mask drawn on one series: a pseudonymised DICOM SEG, or a NIfTI file with an empty header text.

    Attributes:
        series_uid: of the images that the mask lies on.
        names: what the mask's values 1, 2, ... mean, in order.
    """

    file: Digest
    size_bytes: Annotated[int, Field(ge=1, le=MAX_INSTANCE_BYTES)]
    format: Literal["dicom-seg", "nifti"]
    collection: Name
    patient: PatientPseudonym
    study_uid: RemappedUid
    series_uid: RemappedUid
    names: Sequence[Name] = Field(min_length=1)


class ClinicalRow(StrictModel):
    """The agreed clinical fields of one study of one patient; replaces an earlier row for the same study."""

    patient: PatientPseudonym
    study_uid: RemappedUid
    values: dict[FieldName, ClinicalValue]


class ConsentRecord(StrictModel):
    """What one patient decided for one purpose; a patient or purpose that is absent has decided nothing."""

    patient: PatientPseudonym
    purpose: Name
    decision: Literal["consent", "objection", "none"]
    date: Day


class InstancesContent(StrictModel):
    """Instances that have arrived."""

    kind: Literal["instances"] = "instances"
    instances: Sequence[InstanceRecord]


class ClinicalContent(StrictModel):
    """Clinical rows of one collection under one minimal-dataset profile."""

    kind: Literal["clinical"] = "clinical"
    collection: Name
    profile: ProfileId
    rows: Sequence[ClinicalRow]


class ConsentContent(StrictModel):
    """The whole consent state of the hospital; replaces every earlier one.

    Attributes:
        consent_sequence: grows by one with each state.
        source_date: the moment at which the hospital's source was read; its age is checked by rule (I7).
    """

    kind: Literal["consent"] = "consent"
    consent_sequence: Annotated[int, Field(ge=1)]
    source_date: Moment
    records: Sequence[ConsentRecord]


class RemovedContent(StrictModel):
    """Instances that were rejected or deleted at the source, or whose term is over."""

    kind: Literal["removed"] = "removed"
    removals: Sequence[Removal]


class MergedContent(StrictModel):
    """Patients whose pseudonyms became one."""

    kind: Literal["merged"] = "merged"
    merges: Sequence[Merge]


class LabelsContent(StrictModel):
    """Masks that have arrived; a later one for the same series and names replaces the earlier."""

    kind: Literal["labels"] = "labels"
    labels: Sequence[LabelRecord]


Content = InstancesContent | ClinicalContent | ConsentContent | RemovedContent | MergedContent | LabelsContent


class HandoverEntry(StrictModel):
    """What one file of the log signs."""

    version: Literal[1] = 1
    sequence: Annotated[int, Field(ge=1, le=99_999_999)]
    previous: Digest
    operation: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
    written_at: Moment
    content: Annotated[Content, Field(discriminator="kind")]


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


def instance_path(directory: Path, digest: str) -> Path:
    """Return where a pseudonymised file lies: ``instances/<aa>/<sha256>.dcm``."""
    hexadecimal = digest.removeprefix("sha256:")
    return directory / "instances" / hexadecimal[:2] / f"{hexadecimal}.dcm"


def label_path(directory: Path, digest: str) -> Path:
    """Return where a mask lies: ``labels/<aa>/<sha256>``."""
    hexadecimal = digest.removeprefix("sha256:")
    return directory / "labels" / hexadecimal[:2] / hexadecimal


def make_folder(path: Path) -> None:
    """Make a folder of the handover durably, readable by its group, which is compute's, whatever the umask.

    Raises:
        StorageError: it cannot be made.
    """
    if path.is_dir():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o750)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_fault(error, path.name) from error


def read_instance(directory: Path, record: InstanceRecord) -> bytes:
    """Return a pseudonymised file's bytes, verified against its record.

    Raises:
        HandoverError: the file is missing, a link, or not the bytes its digest names.
    """
    data = _read_plain_file(instance_path(directory, record.file), record.size_bytes, "handover instance")
    if len(data) != record.size_bytes or digest_of(data) != record.file:
        raise HandoverError("handover instance: the file is not the one its record names")
    return data


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a PEM Ed25519 public key.

    Raises:
        TrustError: the file is missing or is not such a key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrustError("handover public key: cannot be read", hint="Run the station's init.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError("handover public key: is not an Ed25519 key")
    return key


def _sequences(log: Path) -> list[int]:
    try:
        names = [path.name for path in log.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _ENTRY_FILE.match(name)))


def _read_entry(log: Path, number: int, public_key: Ed25519PublicKey) -> tuple[VerifiedEntry, str]:
    """Return the entry and the digest it names as the one before it."""
    what = f"handover entry {number}"
    data = _read_plain_file(log / f"{number:08d}.json", MAX_ENTRY_BYTES, what)
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


def _read_plain_file(path: Path, max_bytes: int, what: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise HandoverError(f"{what}: cannot be read ({error.strerror})") from error
    if len(data) > max_bytes:
        raise HandoverError(f"{what}: is over {max_bytes} bytes")
    return data
