"""A researcher's request that a train may run: what the board is asked, before there is a policy.

Binding nobody: what counts is a policy that names the same manifest and the same key. Signed by that key, over the very bytes that
a person read and over the account at the orchestrator for which they are meant: so a copy is of no use to anybody else, whoever
sends theirs first. Also the states of a request, as everybody names them, and the board's reasons to decline.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.documents import Digest, Name, Sequence, StrictModel, canonical_json, load_json, load_yaml
from policies.errors import TrustError
from policies.policy import Purpose, Requester
from policies.signing import Signer, sign_envelope, unsafe_payload, verify_envelope

PAYLOAD_TYPE = "application/vnd.pht.train-request+json"
MAX_REQUEST_BYTES = 64 * 1024
MAX_SIGNED_BYTES = 1024 * 1024
"""An envelope: the text as a JSON string (a character may take six bytes), that in base64."""
MAX_REMARK = 500


class RequestState(StrEnum):
    """How far a request is."""

    SUBMITTED = "submitted"
    IN_REVIEW = "in-review"
    APPROVED = "approved"
    DECLINED = "declined"
    ORDERED = "ordered"
    RUNNING = "running"
    RELEASED = "released"
    WITHDRAWN = "withdrawn"


class DeclineReason(StrEnum):
    """Why a board declines."""

    INCOMPLETE = "incomplete"
    PURPOSE = "purpose"
    LEGAL_GROUND = "legal-ground"
    CONSENT = "consent"
    DISCLOSURE = "disclosure"
    DATA = "data"
    TRAIN = "train"
    OTHER = "other"


class TrainAsked(StrictModel):
    """Which train; its bundle must have been submitted, so that the board can look at it."""

    name: Name
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$", max_length=64)]
    manifest_digest: Digest = Field(description="Of train.yaml's bytes, as `pht-train pack` prints it.")


class TrainRequest(StrictModel):
    """The document `request.yaml`."""

    schema_version: Literal[1]
    train: TrainAsked
    purpose: Purpose
    requester: Requester = Field(description="Who would order runs, with which key, and whom the board asks.")
    collections: Sequence[Name] = Field(min_length=1, max_length=100)
    stations: Sequence[Name] = Field(
        default=(), max_length=1000, description="Which hospitals; none is: whichever have the collections."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name, values in (("collections", self.collections), ("stations", self.stations)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice")
        return self


class SignedRequest(StrictModel):
    """What the requester's key signs: the text of `request.yaml`, and for whom it is sent."""

    schema_version: Literal[1]
    sender: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="The researcher's name at the orchestrator, as their token has it; no other account can send this."
    )
    request: Annotated[str, Field(max_length=MAX_REQUEST_BYTES)] = Field(
        description="`request.yaml`, as it was read."
    )


class VerifiedRequest(StrictModel):
    """A request whose signature by the key that it names holds; made by `verify_request` alone."""

    sender: str
    text: bytes
    document: TrainRequest


class Remark(StrictModel):
    """What goes with taking up or withdrawing a request; for the other side to read."""

    text: Annotated[str, Field(max_length=MAX_REMARK)] = ""


class Declined(StrictModel):
    """Why a request is declined."""

    reason: DeclineReason
    text: Annotated[str, Field(min_length=1, max_length=MAX_REMARK)]


def read_request(data: bytes, *, what: str = "request.yaml") -> TrainRequest:
    """Read a request.

    Raises:
        DocumentError: it is none; names the key and the line.
    """
    return load_yaml(TrainRequest, data, what=what)


def sign_request(text: bytes, sender: str, signer: Signer) -> bytes:
    """Return the envelope of a request.

    Args:
        text: `request.yaml`, filled in.
        sender: the researcher's name at the orchestrator.
        signer: the key that the request names.

    Raises:
        DocumentError: it is no request, or `sender` no name.
        TrustError: it names another key.
    """
    document = read_request(text)
    if document.requester.key != signer.public_hex:
        raise TrustError(
            "this is not the key that the request names",
            hint="Name the public part of the key you sign with in requester.key.",
        )
    fields = {"schema_version": 1, "sender": sender, "request": text.decode("utf-8")}
    payload = canonical_json(
        load_json(SignedRequest, canonical_json(fields), what="request", max_bytes=MAX_SIGNED_BYTES)
    )
    return sign_envelope(payload, PAYLOAD_TYPE, signer)


def verify_request(envelope: bytes) -> VerifiedRequest:
    """Return what an envelope holds, once the key that it names has signed it. Who sends it is the caller's to compare.

    Raises:
        TrustError: it is no envelope of a request, or that key did not sign it.
        DocumentError: its content is none.
    """
    try:
        payload = unsafe_payload(envelope, PAYLOAD_TYPE, max_bytes=MAX_SIGNED_BYTES)
    except TrustError as error:
        raise TrustError(
            "a request comes signed by the key that it names",
            hint="`pht-train request send --key` signs it; an earlier pht-train cannot.",
        ) from error
    claimed = load_json(SignedRequest, payload, what="request", max_bytes=MAX_SIGNED_BYTES)
    text = claimed.request.encode()
    if len(text) > MAX_REQUEST_BYTES:
        raise TrustError(f"a request has at most {MAX_REQUEST_BYTES} bytes")
    document = read_request(text)
    verify_envelope(envelope, PAYLOAD_TYPE, [document.requester.key], 1, max_bytes=MAX_SIGNED_BYTES)
    return VerifiedRequest(sender=claimed.sender, text=text, document=document)
