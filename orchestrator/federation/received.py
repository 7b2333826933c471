"""What a station's message says: read as our stations write it, and whether the same question may have another answer."""

from flwr.app import Message

from orchestrator.federation.answers import Answered
from policies.documents import canonical_json, parse_json
from policies.errors import DocumentError, WireError
from policies.refusals import RefusalCode
from policies.wire.instructions import (
    ARRAYS_KEY,
    BODY_KEY,
    MAX_INLINE_ARRAYS_BYTES,
    MAX_REPLY_BYTES,
    RECORD_KEY,
    Kind,
    StationReply,
    Status,
    decode_reply,
)

_PASSING = frozenset(
    {
        RefusalCode.TRUST_UNREACHABLE.value,
        RefusalCode.RESOURCES_BUSY.value,
        RefusalCode.ENGINE_UNAVAILABLE.value,
        RefusalCode.DATA_NOT_READY.value,
        RefusalCode.STATION_STORAGE.value,
        RefusalCode.HOSPITAL_QUIET_HOURS.value,
    }
)
"""Refusals that may be another answer later."""

_HEALED = frozenset(
    {
        RefusalCode.CONSENT_UNKNOWN.value,
        RefusalCode.CONSENT_STALE.value,
        RefusalCode.TRUST_EXPIRED.value,
        RefusalCode.POLICY_NOT_YET_VALID.value,
        RefusalCode.ORDER_NOT_YET_VALID.value,
    }
)
"""Refusals of a run that was accepted, which somebody is about to heal: a clock that went wrong, a register to import, a witness
that is away. To an order that asks to begin they are the answer, unless the station had accepted it before."""

_AROUND = frozenset(
    code.value
    for code in (RefusalCode.NETWORK_UNAVAILABLE, RefusalCode.ENGINE_UNAVAILABLE, RefusalCode.STATION_STORAGE)
)
"""Failures of what is around a train, not of it: the disk is full, here or there, or the engine starts again. No number of them is the end."""

HELD = (_PASSING | _HEALED | _AROUND) - {RefusalCode.RESOURCES_BUSY.value}
"""Of these, what tells nothing of how fast a station is. A busy one is slow for whoever waits."""


def heals(code: str) -> bool:
    """Whether what a station of a run that was accepted refuses by this code is about to be healed."""
    return code in _HEALED


def passes(reply: StationReply, *, begun: bool = False) -> bool:
    """Whether the same question may have another answer a little later.

    Args:
        reply: what the station answered.
        begun: the station accepted the order before, so that being asked to begin is a question in mid-run to it as well.
    """
    if reply.status is Status.FAILED:
        return reply.code in _AROUND
    if reply.status is Status.WITHHELD:
        # Computed, and kept back by what was asked once more as it was to leave; asked again, it is computed again.
        return reply.code in _HEALED
    passing = _PASSING if reply.kind is Kind.PREPARE and not begun else _PASSING | _HEALED
    return reply.status is Status.REFUSED and reply.code in passing


def is_failure(reply: StationReply) -> bool:
    """Whether the train failed there: a container that died while it was prepared is refused by that code, and tried again too."""
    return reply.status is Status.FAILED or (
        reply.status is Status.REFUSED and reply.code == RefusalCode.TRAIN_CRASHED
    )


def is_finished_there(reply: StationReply) -> bool:
    """Whether a station that is to prepare an order has finished it before: it computes nothing any more, and sends what it released again.

    So it is after this orchestrator was restored from a backup that is older than the run's end.
    """
    return (
        reply.kind is Kind.PREPARE
        and reply.status is Status.REFUSED
        and reply.code == RefusalCode.ORDER_SPENT
    )


def read_answer(message: Message) -> Answered:
    """Return a station's answer.

    Raises:
        WireError: it is none of ours.
    """
    try:
        record = message.content.config_records[RECORD_KEY]
        body, arrays = record[BODY_KEY], record.get(ARRAYS_KEY)
    except (KeyError, ValueError):
        raise WireError("the reply is not one of ours") from None
    if not isinstance(body, bytes) or not (arrays is None or isinstance(arrays, bytes)):
        raise WireError("the reply's record is not one of ours")
    if arrays is not None and len(arrays) > MAX_INLINE_ARRAYS_BYTES:
        raise WireError("the reply's inline arrays are too large")
    reply = decode_reply(body)
    try:
        # As our stations write it: whatever else says the same would be room for more than the reply says.
        canonical = canonical_json(parse_json(body, what="reply", max_bytes=MAX_REPLY_BYTES)) == body
    except DocumentError:
        canonical = False
    if not canonical:
        raise WireError("the reply is not written in canonical form")
    return Answered(reply, arrays)
