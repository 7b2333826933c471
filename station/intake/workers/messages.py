"""What intake and its workers say to each other.

Towards a worker: its `Setup` once (the key travels in memory only), then tasks. From a
worker: JSON that is read strictly, as if a hostile program wrote it, for it has met the file.
"""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter

from policies.documents import Digest, Name, Sequence, StrictModel, canonical_json
from policies.errors import StateError
from station.handover import InstanceRecord, RemappedUid
from station.pseudonymisation.keys import PseudonymKey
from station.pseudonymisation.options import DEFAULT_OPTIONS, DeidentificationOptions
from station.pseudonymisation.pixels.settings import PixelSettings

HEAD = struct.Struct("!I")
MAX_SETUP_BYTES = 64 << 20
MAX_TASK_BYTES = 1 << 20
MAX_ANSWER_BYTES = 32 << 20
_Identity = Annotated[str, Field(max_length=64)]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker works with.

    Attributes:
        key: the hospital's pseudonym key.
        options: per collection; the Basic Profile with modified dates for one that is not named.
        body_parts: per collection, the body part of images that name none.
        aliases: (issuer, id) of a merged patient, and whom the hospital knows it by now.
        handover: where pseudonymised files go.
        pixels: what the hospital says about burned-in text.
    """

    key: PseudonymKey
    project: str
    default_issuer: str
    options: dict[str, DeidentificationOptions]
    body_parts: dict[str, str]
    aliases: dict[tuple[str, str], tuple[str, str]]
    handover: Path
    sop_classes: frozenset[str]
    max_file_bytes: int
    memory_bytes: int
    cpu_s: int
    pixels: PixelSettings

    def options_for(self, collection: str) -> DeidentificationOptions:
        """Return what a collection chose."""
        return self.options.get(collection, DEFAULT_OPTIONS)

    def known_by(self, issuer: str, patient_id: str) -> tuple[str, str]:
        """Return whom the hospital knows a patient by."""
        return self.aliases.get((issuer, patient_id), (issuer, patient_id))

    def encode(self) -> bytes:
        """Return the bytes for a worker, the key's secret among them; never for a file."""
        document = _SetupJson(
            key_id=self.key.key_id,
            key_version=self.key.version,
            key_secret=self.key.secret_text(),
            project=self.project,
            default_issuer=self.default_issuer,
            options=self.options,
            body_parts=self.body_parts,
            aliases=tuple((*old, *new) for old, new in sorted(self.aliases.items())),
            handover=str(self.handover),
            sop_classes=tuple(sorted(self.sop_classes)),
            max_file_bytes=self.max_file_bytes,
            memory_bytes=self.memory_bytes,
            cpu_s=self.cpu_s,
            pixels=self.pixels,
        )
        return document.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            MessageError: it is not that.
        """
        try:
            read = _SetupJson.model_validate_json(data)
            key = PseudonymKey.restored(read.key_id, read.key_version, read.key_secret)
        except (ValueError, StateError):
            raise MessageError from None
        return cls(
            key=key,
            project=read.project,
            default_issuer=read.default_issuer,
            options=read.options,
            body_parts=read.body_parts,
            aliases={(row[0], row[1]): (row[2], row[3]) for row in read.aliases},
            handover=Path(read.handover),
            sop_classes=frozenset(read.sop_classes),
            max_file_bytes=read.max_file_bytes,
            memory_bytes=read.memory_bytes,
            cpu_s=read.cpu_s,
            pixels=read.pixels,
        )


class _SetupJson(StrictModel):
    key_id: str
    key_version: int
    key_secret: str = Field(repr=False)
    project: str
    default_issuer: str
    options: dict[str, DeidentificationOptions]
    body_parts: dict[str, str]
    aliases: Sequence[Sequence[str]]
    handover: str
    sop_classes: Sequence[str]
    max_file_bytes: int
    memory_bytes: int
    cpu_s: int
    pixels: PixelSettings


class Box(StrictModel):
    """A rectangle of an image, in pixels from its upper left corner."""

    left: Annotated[int, Field(ge=0, le=65_535)]
    top: Annotated[int, Field(ge=0, le=65_535)]
    width: Annotated[int, Field(ge=1, le=65_536)]
    height: Annotated[int, Field(ge=1, le=65_536)]


class TakeTask(StrictModel):
    """Pseudonymise one file into the handover folder.

    Attributes:
        reviewed: a person has looked at the pixels; they are not inspected, and nothing is claimed of them.
        boxes: what that person wants masked.
    """

    kind: Literal["take"] = "take"
    path: str
    collection: Name
    reviewed: bool = False
    boxes: Sequence[Box] = ()


class DescribeTask(StrictModel):
    """Say what a file is, in technical facts."""

    kind: Literal["describe"] = "describe"
    path: str


class RenderTask(StrictModel):
    """Make a small picture of a file."""

    kind: Literal["render"] = "render"
    path: str
    longest_side: Annotated[int, Field(ge=16, le=4096)]


Task = TakeTask | DescribeTask | RenderTask


class Taken(StrictModel):
    """A file that was pseudonymised; its copy is durable in the handover folder and was read again.

    Attributes:
        source: digest of the identified file.
        issuer: whom the hospital knows the patient by, with `patient_id`; identified, as the following two are.
    """

    kind: Literal["taken"] = "taken"
    record: InstanceRecord
    source: Digest
    issuer: _Identity
    patient_id: _Identity
    accession: _Identity
    study_date: Annotated[str, Field(max_length=10)]


class Refused(StrictModel):
    """A file that goes to quarantine.

    Attributes:
        reason: of `PseudonymisationFault` or `IntakeReason`.
        study_uid: pseudonymous, where it is known.
    """

    kind: Literal["refused"] = "refused"
    reason: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    study_uid: RemappedUid | None = None


class Described(StrictModel):
    """Technical facts of a file: nothing in it names a patient or a hospital."""

    kind: Literal["described"] = "described"
    size_bytes: Annotated[int, Field(ge=0)]
    sop_class_uid: Annotated[str, Field(pattern=r"^[0-9.]{0,64}$")] = ""
    transfer_syntax_uid: Annotated[str, Field(pattern=r"^[0-9.]{0,64}$")] = ""
    modality: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{0,16}$")] = ""
    rows: Annotated[int, Field(ge=0, le=65_535)] | None = None
    columns: Annotated[int, Field(ge=0, le=65_535)] | None = None
    frames: Annotated[int, Field(ge=0, le=1 << 31)] | None = None


class Rendered(StrictModel):
    """A picture, as a PNG in base64."""

    kind: Literal["rendered"] = "rendered"
    png: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=MAX_ANSWER_BYTES)]


class Broken(StrictModel):
    """A fault of ours that nobody caught, by type and place; the file is as good as one that killed its worker."""

    kind: Literal["broken"] = "broken"
    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,60}$")]
    place: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:]{1,120}$")]


class Unstored(StrictModel):
    """The disk did not take the pseudonymised file: no fault of the file's, which is tried again later."""

    kind: Literal["unstored"] = "unstored"


class Ready(StrictModel):
    """A worker that has its setup and waits for tasks."""

    kind: Literal["ready"] = "ready"
    pid: Annotated[int, Field(ge=1)]


Answer = Taken | Refused | Described | Rendered | Broken | Unstored
TASK: TypeAdapter[Task] = TypeAdapter(Annotated[Task, Field(discriminator="kind")])
ANSWER: TypeAdapter[Answer | Ready] = TypeAdapter(Annotated[Answer | Ready, Field(discriminator="kind")])


class MessageError(Exception):
    """The other side is gone, or what it says is no message."""


def send(connection: socket.socket, body: bytes) -> None:
    """Send one message.

    Raises:
        MessageError: the other side is gone.
    """
    try:
        connection.sendall(HEAD.pack(len(body)) + body)
    except OSError as error:
        raise MessageError from error


def send_document(connection: socket.socket, document: StrictModel) -> None:
    """Send one document."""
    send(connection, canonical_json(document))


def receive(connection: socket.socket, max_bytes: int) -> bytes:
    """Receive one message.

    Raises:
        MessageError: the other side is gone, or the message is over `max_bytes`.
    """
    (length,) = HEAD.unpack(_exactly(connection, HEAD.size))
    if length > max_bytes:
        raise MessageError
    return _exactly(connection, length)


def receive_setup(connection: socket.socket) -> Setup:
    """Receive the setup: at a worker, from intake, which alone holds the other end."""
    return Setup.decode(receive(connection, MAX_SETUP_BYTES))


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        try:
            part = connection.recv(min(length - len(data), 1 << 20))
        except OSError as error:
            raise MessageError from error
        if not part:
            raise MessageError
        data += part
    return bytes(data)
