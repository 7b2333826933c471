"""What a station says about its own records, signed on a schedule, so that others can hold it to it later.

A statement carries the ends of both hash chains and every counter that only grows. The orchestrator countersigns it (a
`StatementReceipt`), the board's witness signs the newest of every station in one document (`policies.station_heads`). So a chain
that was cut off, a station restored from a backup and a copy that runs twice are seen (`policies.rules.statement_rules`). No patient
and no count of patients.

Pure: bytes and values in, values out. Invariant: a statement is read only with its station's signature.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from policies.documents import (
    Digest,
    Moment,
    Name,
    Sequence,
    StrictModel,
    canonical_json,
    digest_of,
    load_canonical_json,
    load_json,
)
from policies.policy import PublicKeyHex
from policies.signing import Signer, sign_envelope, unsafe_payload, verify_envelope

STATEMENT_PAYLOAD_TYPE = "application/vnd.pht.station-statement+json"
RECEIPT_PAYLOAD_TYPE = "application/vnd.pht.statement-receipt+json"
MAX_STATEMENT_BYTES = 512 * 1024
MAX_POLICIES = 1000
MAX_ORDERS = 1000

Count = Annotated[int, Field(ge=0, le=1 << 53)]
Positive = Annotated[int, Field(ge=1, le=1 << 53)]


class ChainEnd(StrictModel):
    """The end of one hash chain: how many entries it has, and the digest of the last."""

    seq: Count
    digest: Digest


class PolicyUse(StrictModel):
    """What one policy used at this station, over all its versions: its budget is one.

    Attributes:
        privacy: what all draws of noise under it cost together, in units of `policies.privacy`: an upper bound on what any
            patient was charged, and no count of patients. Left out where there was none, so that a statement without noise
            reads as it did before there was any.
    """

    policy_id: Name
    runs: Count
    releases: Count
    privacy: Annotated[int, Field(ge=0, le=1 << 62)] = 0

    @model_serializer(mode="wrap")
    def _without_nothing(self, as_usual: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = as_usual(self)
        if not self.privacy:
            del fields["privacy"]
        return fields


class OrderUse(StrictModel):
    """One run order that has not expired.

    Attributes:
        order: digest of its signed bytes.
        releases: recorded answers that left.
        finished: it can do nothing more here.
    """

    order: Digest
    releases: Count
    finished: bool


class TrustVersions(StrictModel):
    """The versions of the board's repository that the station has seen; 0 where it has seen none."""

    root: Count = 0
    timestamp: Count = 0
    targets: Count = 0
    register_version: Count = 0


class EntryRange(StrictModel):
    """Entries of a chain, both ends included; empty where `last` is below `first`."""

    first: Positive
    last: Count


class Restoration(StrictModel):
    """Why an epoch began: the station was restored and reconciled with what it had stated before.

    Attributes:
        epoch, sequence, statement: the countersigned statement it was reconciled with.
        lost_audit, lost_egress: entries that were stated and that the restored records may lack.
        reconciled: when.
    """

    epoch: Positive
    sequence: Positive
    statement: Digest
    lost_audit: EntryRange
    lost_egress: EntryRange
    reconciled: Moment


class StationStatement(StrictModel):
    """The state of a station's records.

    Attributes:
        epoch: one more with every restoration.
        sequence: one more with every statement, over all epochs.
        audit, egress: the chains before this statement's own entries in them.
        consent_sequence: of the consent state in force; None where there is none.
        restored: in every statement of an epoch that a restoration began.
    """

    schema_version: Literal[1] = 1
    station: Name
    epoch: Positive
    sequence: Positive
    time: Moment
    audit: ChainEnd
    egress: ChainEnd
    policies: Sequence[PolicyUse] = Field(default=(), max_length=MAX_POLICIES)
    orders: Sequence[OrderUse] = Field(default=(), max_length=MAX_ORDERS)
    trust: TrustVersions = Field(default_factory=TrustVersions)
    consent_sequence: Count | None = None
    restored: Restoration | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "StationStatement":
        if (self.restored is None) != (self.epoch == 1):
            raise ValueError("an epoch after the first, and no other, says what it was restored from")
        if self.restored is not None and (
            self.restored.epoch >= self.epoch or self.restored.sequence >= self.sequence
        ):
            raise ValueError("a restoration names an earlier statement")
        for what, names in (
            ("policy", [use.policy_id for use in self.policies]),
            ("order", [use.order for use in self.orders]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"names a {what} twice")
        return self

    @property
    def digest(self) -> str:
        """Of the signed bytes: the canonical form is the only one that is read."""
        return digest_of(canonical_json(self))


class StatementReceipt(StrictModel):
    """The orchestrator's word that it holds a statement, and nothing that contradicts it."""

    schema_version: Literal[1] = 1
    station: Name
    epoch: Positive
    sequence: Positive
    statement: Digest
    received: Moment


class StatementAnswer(StrictModel):
    """A statement with its receipt, as the orchestrator gives them out.

    Attributes:
        statement, receipt: DSSE envelopes as text.
        notary_key: the public key of the receipt.
    """

    statement: Annotated[str, Field(max_length=2 * MAX_STATEMENT_BYTES)]
    receipt: Annotated[str, Field(max_length=16 * 1024)]
    notary_key: PublicKeyHex


class StatedEntry(StrictModel):
    """Which statement of a station is the newest."""

    station: Name
    epoch: Positive
    sequence: Positive
    statement: Digest


class StatedList(StrictModel):
    """The newest statement of every station, by its digest."""

    stations: Sequence[StatedEntry] = Field(max_length=10_000)


def sign_statement(statement: StationStatement, signer: Signer) -> bytes:
    """Return the DSSE envelope of a statement."""
    return sign_envelope(canonical_json(statement), STATEMENT_PAYLOAD_TYPE, signer)


def open_statement(envelope: bytes, identity_key: str) -> StationStatement:
    """Read a statement that a station signed.

    Args:
        envelope: untrusted bytes.
        identity_key: the station's, hex, as the board's register names it.

    Raises:
        TrustError: not signed by that key.
        DocumentError: signed, but not a statement in its canonical form.
    """
    payload = verify_envelope(envelope, STATEMENT_PAYLOAD_TYPE, [identity_key], 1).payload
    return load_canonical_json(
        StationStatement, payload, what="station statement", max_bytes=MAX_STATEMENT_BYTES
    )


def unsafe_station_of(envelope: bytes) -> str:
    """Return the station that an envelope claims to be of: only to find the key that decides it."""
    payload = unsafe_payload(envelope, STATEMENT_PAYLOAD_TYPE)
    return load_json(
        StationStatement, payload, what="station statement", max_bytes=MAX_STATEMENT_BYTES
    ).station


def sign_receipt(statement: StationStatement, notary: Signer, now: datetime) -> bytes:
    """Return the receipt of a statement."""
    receipt = StatementReceipt(
        station=statement.station,
        epoch=statement.epoch,
        sequence=statement.sequence,
        statement=statement.digest,
        received=now,
    )
    return sign_envelope(canonical_json(receipt), RECEIPT_PAYLOAD_TYPE, notary)


def open_receipt(envelope: bytes, notary_key: str) -> StatementReceipt:
    """Read a receipt.

    Raises:
        TrustError: not signed by that key.
        DocumentError: signed, but not a receipt.
    """
    verified = verify_envelope(envelope, RECEIPT_PAYLOAD_TYPE, [notary_key], 1)
    return load_canonical_json(StatementReceipt, verified.payload, what="statement receipt")
