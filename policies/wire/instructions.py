"""What orchestrator and station say to each other about one run: instructions, and the replies to them.

Both ride as the bytes of one Flower ConfigRecord (``pht`` / ``body``), beside at most `MAX_INLINE_ARRAYS_BYTES` of
arrays (``pht`` / ``arrays``); larger arrays travel by digest (`Blob`) over the orchestrator's blob endpoint.

Invariants: every instruction names (order, round, kind, attempt), so that a delivery that happens twice is one event;
what decodes here has its shape only. It is not yet allowed: admission (station) and the reply contract (orchestrator)
decide. Untrusted bytes raise `WireError` and nothing else.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Self, TypeVar

from pydantic import Field, JsonValue, ValidationError, model_validator

from policies.documents import Digest, StrictModel, canonical_json, parse_json
from policies.errors import DocumentError, WireError

WIRE_VERSION = 1
"""What this code speaks; `OLDEST_VERSION` is the oldest that it speaks as well (policies/README.md, "Versions")."""
OLDEST_VERSION = 1
MAX_VERSION = 999
RECORD_KEY = "pht"
BODY_KEY = "body"
ARRAYS_KEY = "arrays"
MESSAGE_TYPE = "train.pht"
"""Flower's message type: every instruction uses it, so that a stock node treats ours as what it cannot run."""

MAX_INSTRUCTION_BYTES = 512 * 1024
MAX_REPLY_BYTES = 1024 * 1024
MAX_INLINE_ARRAYS_BYTES = 64 * 1024
MAX_ROUND = 100_000

Key = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.\-/]+$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Cell = int | Number


class Kind(StrEnum):
    """What a station is asked to do with an order."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    ANALYSE = "analyse"
    FINISH = "finish"


class Status(StrEnum):
    """The closed list of what a station answers (invariant I1)."""

    ACCEPTED = "accepted"
    PENDING = "pending"
    REFUSED = "refused"
    RELEASED = "released"
    WITHHELD = "withheld"
    FAILED = "failed"
    FINISHED = "finished"
    STOPPED = "stopped"


class Blob(StrictModel):
    """Bytes that travel beside the message: inline up to `MAX_INLINE_ARRAYS_BYTES`, else by digest."""

    digest: Digest
    size: Annotated[int, Field(ge=0, le=2**40)]


class Instruction(StrictModel):
    """One thing the orchestrator asks of one station; asked again with a higher ``attempt``."""

    version: Annotated[int, Field(ge=OLDEST_VERSION, le=MAX_VERSION)] = WIRE_VERSION
    """A later one than `WIRE_VERSION` has only what every version has (`_IN_EVERY_VERSION`): enough to refuse it by its code."""
    kind: Kind
    order_digest: Digest
    order: Annotated[str, Field(max_length=256 * 1024)] | None = None
    """The run order's DSSE envelope, as JSON text: in ``prepare`` and nowhere else."""
    round: Annotated[int, Field(ge=0, le=MAX_ROUND)] = 0
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    config: Annotated[
        dict[Key, int | Number | bool | Annotated[str, Field(max_length=4096)]], Field(max_length=256)
    ] = Field(default_factory=dict)
    weights: Blob | None = None
    deadline_s: Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
    """Whole seconds from receipt in which an answer is of use; the station may have shorter limits."""

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if (self.order is not None) != (self.kind is Kind.PREPARE):
            raise ValueError("an order rides in 'prepare' and nowhere else")
        if (self.round == 0) != (self.kind in {Kind.PREPARE, Kind.FINISH}):
            raise ValueError("rounds count from 1; 'prepare' and 'finish' have round 0")
        if self.weights is not None and self.kind not in {Kind.TRAIN, Kind.EVALUATE}:
            raise ValueError("weights ride with 'train' and 'evaluate' only")
        return self


class StationReply(StrictModel):
    """A station's answer. ``release`` and ``metrics`` come from its egress guard, the rest from closed lists."""

    version: Annotated[int, Field(ge=OLDEST_VERSION, le=WIRE_VERSION)] = WIRE_VERSION
    """Never a later one than that of the instruction it answers."""
    order_digest: Digest
    kind: Kind
    round: Annotated[int, Field(ge=0, le=MAX_ROUND)] = 0
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    status: Status
    code: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")] | None = None
    """A `policies.refusals.RefusalCode`, or an error code that the train's manifest declares."""
    correlation_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9\-]{0,64}$")] = ""
    release: Blob | None = None
    metrics: Annotated[dict[Key, int | Number], Field(max_length=256)] = Field(default_factory=dict)
    tables: Annotated[
        dict[Key, Annotated[list[Annotated[list[Cell], Field(max_length=256)]], Field(max_length=65536)]],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    num_examples: Count = 0
    """The station's own count, rounded, fixed for a run: the weight in an average."""
    counts: Annotated[dict[Key, Count], Field(max_length=64)] = Field(default_factory=dict)
    compute_s: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] = 0.0
    egress_ledger_head: Digest | None = None
    audit_head: Digest | None = None

    @model_validator(mode="after")
    def _fields_fit_the_status(self) -> Self:
        released = self.status is Status.RELEASED
        if not released and (self.release is not None or self.metrics or self.tables):
            raise ValueError("only a 'released' reply carries results")
        if self.status in {Status.REFUSED, Status.WITHHELD, Status.FAILED} and self.code is None:
            raise ValueError(f"a '{self.status}' reply names its code")
        return self


SINCE: Mapping[str, int] = MappingProxyType({})
"""Which keys of an instruction or a reply are younger than version 1, and since when: who speaks an older version leaves them out."""

_IN_EVERY_VERSION: Final = frozenset(
    {"version", "kind", "order_digest", "order", "round", "attempt", "deadline_s"}
)


def encode(document: Instruction | StationReply) -> bytes:
    """Canonical JSON (sorted keys, no spaces, UTF-8) of a document, with the keys that its version has.

    Raises:
        WireError: it is larger than its kind may be, or says something that its version has no words for.
    """
    younger = [name for name, since in SINCE.items() if since > document.version]
    for name in younger:
        field = type(document).model_fields.get(name)
        if field is not None and getattr(document, name) != field.get_default(call_default_factory=True):
            raise WireError(f"version {document.version} has no {name}")
    kept = document.model_dump(mode="json", exclude=set(younger))
    body = canonical_json(kept)
    limit = MAX_INSTRUCTION_BYTES if isinstance(document, Instruction) else MAX_REPLY_BYTES
    if len(body) > limit:
        raise WireError(f"a message of {len(body)} bytes is over the limit of {limit}")
    return body


def decode_instruction(body: bytes) -> Instruction:
    """Parse an instruction that came over the network.

    Raises:
        WireError: too large, not JSON, a key twice, a number that is not finite, an unknown key or a wrong value.
    """
    return _decode(Instruction, body, MAX_INSTRUCTION_BYTES)


def decode_reply(body: bytes) -> StationReply:
    """Parse a station's reply that came over the network.

    Raises:
        WireError: as in `decode_instruction`.
    """
    return _decode(StationReply, body, MAX_REPLY_BYTES)


_Document = TypeVar("_Document", Instruction, StationReply)


def _decode(model: type[_Document], body: bytes, limit: int) -> _Document:
    if len(body) > limit:
        raise WireError(f"a message of {len(body)} bytes is over the limit of {limit}")
    try:
        # Two passes: pydantic alone takes the last of two equal keys; and only its own JSON mode reads enumerations
        # strictly.
        value = parse_json(body, what=model.__name__, max_bytes=limit)
        if model is Instruction and isinstance(value, dict):
            body = _as_every_version_has_it(value) or body
        return model.model_validate_json(body)
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, item['loc'][:2]))[:64] or 'document'}: {item['type']}"
            for item in error.errors()[:4]
        )
        raise WireError(f"the {model.__name__} does not fit its schema ({where})") from None
    except (DocumentError, UnicodeDecodeError, RecursionError):
        raise WireError(f"the {model.__name__} is not acceptable JSON") from None


def _as_every_version_has_it(value: dict[str, JsonValue]) -> bytes | None:
    """An instruction of a later version, without what this code cannot know; None for one of a version that it speaks."""
    version = value.get("version")
    if type(version) is not int or version <= WIRE_VERSION:
        return None
    return canonical_json({name: each for name, each in value.items() if name in _IN_EVERY_VERSION})
