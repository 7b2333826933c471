"""What the Fleet API's connection takes and gives, and what the SuperLink may say instead."""

from dataclasses import dataclass

from policies.errors import NetworkError


class RunOverError(NetworkError):
    """The SuperLink says that this Flower run is finished, stopped or unknown."""


class NotAdmittedError(NetworkError):
    """The SuperLink does not accept this node's key, or the clocks differ by minutes."""


class StillOnlineError(NetworkError):
    """ActivateNode answered 412: an earlier life of this node counts as online for a little longer."""


class OversizeError(NetworkError):
    """A response is larger than any of ours."""


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """One delivered message.

    Attributes:
        run_id: Flower's run.
        message_id: Flower's id of the message.
        body: the instruction's bytes, not yet parsed; None when the message is not one of ours.
        arrays: the inline arrays, not yet parsed.
        reply_to: what `FleetConnection.reply` needs to answer, opaque, kept durably by the agent.
        expires: seconds since the epoch after which the SuperLink drops a reply.
    """

    run_id: int
    message_id: str
    body: bytes | None
    arrays: bytes | None
    reply_to: bytes
    expires: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply on its way.

    Attributes:
        reply_to: `IncomingMessage.reply_to` of the message that is answered.
        body: the encoded `StationReply`.
        arrays: at most `MAX_INLINE_ARRAYS_BYTES` of safetensors.
        answered: seconds since the epoch; fixed, because Flower derives the reply's identity from it.
    """

    reply_to: bytes
    body: bytes
    arrays: bytes | None
    answered: float
