"""What the orchestrator's API answers, as its client reads it: bounded, validated, and errors as errors of ours.

Never shows a peer's text except problem titles and hints, bounded.
"""

from typing import Annotated, Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.bundle import BundleIndex
from policies.documents import Digest, parse_json
from policies.errors import (
    NetworkError,
    NotFoundError,
    PhtError,
    RefusedError,
    StorageError,
    TrustError,
    UsageError,
    WireError,
)
from policies.refusals import RefusalCode

MAX_ANSWER_BYTES = 8 << 20

Short = Annotated[str, Field(max_length=300)]


class _Answer(BaseModel):
    """Answers may grow keys in later versions of the orchestrator; the ones we know are strict."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class BlobUpload(_Answer):
    """What became of an upload."""

    digest: Digest
    size: int
    complete: bool


class Progress(_Answer):
    """How far a run is."""

    state: Short
    round: int
    rounds: int
    stage: Short = ""
    accepted: list[Short] = Field(default_factory=list)
    missing: dict[str, Short] = Field(default_factory=dict)
    correlation: dict[str, Short] = Field(default_factory=dict)
    reviewing: dict[str, Short] = Field(default_factory=dict)
    code: Short = ""
    excluded: dict[str, Short] = Field(default_factory=dict)
    missing_since: dict[str, Short] = Field(default_factory=dict)
    waiting: Short = ""
    position: int = 0
    full: list[Short] = Field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self.state in {"finished", "failed", "stopped"}


class Identity(_Answer):
    """Who we are to the orchestrator."""

    role: Short
    name: Short


class KeptBlob(_Answer):
    """A blob that we sent, and what needs it."""

    digest: Digest
    size: int
    use: Short


class Holding(_Answer):
    """What our uploads take of what we may have; a limit of 0 is none."""

    limit_bytes: int
    used_bytes: int
    blobs: list[KeptBlob]


class RunStatus(_Answer):
    """One run; `rounds` and `events` have the orchestrator's own form."""

    digest: Digest
    order_id: Short
    policy_id: Short
    policy_version: int
    requester: Short
    accepted: Short
    stations: list[Short]
    progress: Progress
    result: list[Short]
    rounds: list[dict[str, Any]] = Field(default_factory=list)
    history: list[dict[str, Any]] = Field(default_factory=list)


class RunEvents(_Answer):
    """New finished rounds, and where the run stands."""

    events: list[dict[str, Any]]
    next: int
    mark: Short
    progress: Progress
    more: bool = False


class OrderAccepted(_Answer):
    """The order is queued; its digest names the run."""

    digest: Digest


class Bundles(_Answer):
    """The bundles of one image or one manifest."""

    bundles: list[BundleIndex]


_Model = TypeVar("_Model", bound=BaseModel)


def read_answer(model: type[_Model], data: bytes) -> _Model:
    """Read an answer as what it should be.

    Raises:
        WireError: it is something else.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise WireError(f"the orchestrator's answer is not a {model.__name__}") from error


def bounded_body(response: httpx.Response) -> bytes:
    """Read a streamed answer.

    Raises:
        WireError: it is larger than `MAX_ANSWER_BYTES`.
    """
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise WireError("the orchestrator's answer is too large")
    return bytes(body)


def fault_of(status: int, body: bytes) -> PhtError:
    """Return our error for an answer that is a problem document, or anything else that is no success."""
    title, hint, code = f"the orchestrator answered {status}", "", ""
    try:
        value = parse_json(body, what="problem", max_bytes=64 * 1024)
    except PhtError:
        value = None
    if isinstance(value, dict):
        title, hint, code = (str(value.get(key, ""))[:500] for key in ("title", "hint", "code"))
    if code in RefusalCode.__members__:
        return RefusedError(code, title, hint=hint)
    kinds: dict[int, type[PhtError]] = {
        401: TrustError,
        403: TrustError,
        404: NotFoundError,
        # Too many at once: asked again later it is answered.
        429: NetworkError,
        507: StorageError,
    }
    kind = kinds.get(status, NetworkError if status >= 500 else UsageError)
    return kind(title, hint=hint)
