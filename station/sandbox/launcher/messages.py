"""What compute and the launcher say to each other: a closed set of verbs as length-prefixed JSON. Pure but for the socket.

A message is a big-endian 32-bit length and that many bytes of JSON. A request is one of `Request`; an answer is `Answer`.
"""

import socket
import struct
import time
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from policies.documents import Digest, StrictModel, canonical_json, parse_json
from policies.errors import DocumentError, WireError
from policies.refusals import RefusalCode
from station.sandbox.gpu.model import GpuReport
from station.sandbox.spec import (
    ContainerSpec,
    ContainerStatus,
    EngineInfo,
    LoadedImage,
    RunId,
    StartedContainer,
)

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 2 << 20
MAX_WAIT_S: Final = 3600.0

_LENGTH: Final = struct.Struct(">I")


class EngineInfoRequest(StrictModel):
    """What the engine is and what it cannot enforce."""

    verb: Literal["engine-info"] = "engine-info"


class LoadImageRequest(StrictModel):
    """Bring an image from the layer store into the engine."""

    verb: Literal["load-image"] = "load-image"
    config_digest: Digest


class RemoveImageRequest(StrictModel):
    """Remove the image that was made of one in the layer store."""

    verb: Literal["remove-image"] = "remove-image"
    config_digest: Digest


class StartRequest(StrictModel):
    """Start a container."""

    verb: Literal["start"] = "start"
    spec: ContainerSpec


class StatusRequest(StrictModel):
    """How a run's container is."""

    verb: Literal["status"] = "status"
    run_id: RunId


class WaitRequest(StrictModel):
    """Wait until a run's container has exited."""

    verb: Literal["wait"] = "wait"
    run_id: RunId
    timeout_s: Annotated[float, Field(ge=0, le=MAX_WAIT_S)]


class LogsRequest(StrictModel):
    """The end of what a run's container wrote."""

    verb: Literal["logs"] = "logs"
    run_id: RunId
    max_bytes: Annotated[int, Field(ge=0, le=256 * 1024)]


class StopRequest(StrictModel):
    """Kill and remove a run's container."""

    verb: Literal["stop"] = "stop"
    run_id: RunId


class ListRequest(StrictModel):
    """Every container of this station."""

    verb: Literal["list"] = "list"


class RemoveOrphansRequest(StrictModel):
    """Kill and remove every container of this station."""

    verb: Literal["remove-orphans"] = "remove-orphans"


class GpusRequest(StrictModel):
    """Every GPU of the host, and how it is."""

    verb: Literal["gpus"] = "gpus"


Request = (
    EngineInfoRequest
    | LoadImageRequest
    | RemoveImageRequest
    | StartRequest
    | StatusRequest
    | WaitRequest
    | LogsRequest
    | StopRequest
    | ListRequest
    | RemoveOrphansRequest
    | GpusRequest
)
_REQUESTS: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="verb")])


class Answer(StrictModel):
    """What the launcher answers: a refusal, or an error, or the one field that belongs to the verb.

    Attributes:
        refusal: the launcher said no.
        error: something did not answer or failed.
        text: for the operator, with a refusal or an error.
    """

    refusal: Annotated[RefusalCode | None, Field(strict=False)] = None
    error: Literal["unavailable", "fault"] | None = None
    text: str = ""
    hint: str = ""
    engine: EngineInfo | None = None
    image: LoadedImage | None = None
    started: StartedContainer | None = None
    status: ContainerStatus | None = None
    runs: tuple[ContainerStatus, ...] | None = Field(default=None, strict=False)
    logs: str | None = None
    removed: int | None = None
    gpus: GpuReport | None = None


def parse_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        WireError: it is none of the closed set, or an argument is not what it must be.
    """
    try:
        return _REQUESTS.validate_python(
            parse_json(data, what="launcher request", max_bytes=MAX_REQUEST_BYTES)
        )
    except (DocumentError, ValidationError) as error:
        raise WireError("no request that the launcher knows") from error


def parse_answer(data: bytes) -> Answer:
    """Read an answer.

    Raises:
        WireError: it is none.
    """
    try:
        return Answer.model_validate(parse_json(data, what="launcher answer", max_bytes=MAX_ANSWER_BYTES))
    except (DocumentError, ValidationError) as error:
        raise WireError("no answer of a launcher") from error


def send(sock: socket.socket, message: StrictModel) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone.
    """
    data = canonical_json(message)
    sock.sendall(_LENGTH.pack(len(data)) + data)


def receive(sock: socket.socket, *, max_bytes: int, deadline: float) -> bytes | None:
    """Receive one message's bytes; ``None`` when the other side closed before it began one.

    Raises:
        WireError: it is too large, cut short, or did not come before the deadline (on ``time.monotonic``).
    """
    head = _take(sock, _LENGTH.size, deadline)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise WireError("a message of the launcher's socket was cut short")
    (length,) = _LENGTH.unpack(head)
    if length > max_bytes:
        raise WireError(f"a message of {length} bytes on the launcher's socket; at most {max_bytes} are read")
    data = _take(sock, length, deadline)
    if len(data) < length:
        raise WireError("a message of the launcher's socket was cut short")
    return data


def _take(sock: socket.socket, count: int, deadline: float) -> bytes:
    taken = bytearray()
    while len(taken) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise WireError("a message of the launcher's socket came too late")
        sock.settimeout(left)
        try:
            chunk = sock.recv(min(count - len(taken), 65536))
        except TimeoutError as error:
            raise WireError("a message of the launcher's socket came too late") from error
        except OSError:
            break
        if not chunk:
            break
        taken += chunk
    return bytes(taken)
