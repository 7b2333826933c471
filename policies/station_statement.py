"""What a station says about its own records, signed on a schedule, so that others can hold it to it later.

A statement carries the ends of both hash chains and every counter that only grows. The orchestrator countersigns it (a
`StatementReceipt`), the board's witness signs the newest of every station in one document (`StationHeads`). So a chain that
was cut off, a station restored from a backup and a copy that runs twice are seen. No patient and no count of patients.

Pure: bytes and values in, values out. Invariant: a statement is read only with its station's signature; `held_against` is
the one rule of what may follow what, for orchestrator and witness alike. Longer than most, because the rule stands beside what it compares.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from policies.documents import (
    Digest,
    Moment,
    Name,
    Sequence,
    StrictModel,
    canonical_json,
    digest_of,
    load_json,
)
from policies.errors import DocumentError
from policies.policy import PublicKeyHex
from policies.refusals import RefusalCode, Refused
from policies.signing import Signer, sign_envelope, unsafe_payload, verify_envelope

STATEMENT_PAYLOAD_TYPE = "application/vnd.pht.station-statement+json"
RECEIPT_PAYLOAD_TYPE = "application/vnd.pht.statement-receipt+json"
HEADS_PAYLOAD_TYPE = "application/vnd.pht.station-heads+json"
MAX_STATEMENT_BYTES = 512 * 1024
MAX_HEADS_BYTES = 4 * 1024 * 1024
MAX_POLICIES = 1000
MAX_ORDERS = 1000
MAX_REMEMBERED = 1000

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


class WitnessedStation(StatedEntry):
    """The newest statement of one station that the witness has seen, with its chain ends."""

    audit: ChainEnd
    egress: ChainEnd
    seen: Moment


class WitnessedFork(StrictModel):
    """Two statements of one station that exclude each other; the witness keeps both.

    Attributes:
        code: `STATEMENT_FORK` or `STATEMENT_ROLLBACK`.
        standing, offered: their digests.
    """

    station: Name
    epoch: Positive
    sequence: Positive
    code: Annotated[str, Field(pattern=r"^STATEMENT_[A-Z]{1,20}$")]
    standing: Digest
    offered: Digest
    seen: Moment


class WitnessedRestoration(StrictModel):
    """A station was restored, and said so."""

    station: Name
    epoch: Positive
    restored: Restoration
    seen: Moment


class StationHeads(StrictModel):
    """The witness's document: where every station's records stood, what forked, and what was restored."""

    schema_version: Literal[1] = 1
    board: Name
    time: Moment
    stations: Sequence[WitnessedStation] = Field(default=(), max_length=10_000)
    forks: Sequence[WitnessedFork] = Field(default=(), max_length=MAX_REMEMBERED)
    restorations: Sequence[WitnessedRestoration] = Field(default=(), max_length=MAX_REMEMBERED)

    def find(self, station: str) -> WitnessedStation | None:
        """Return what was witnessed of a station."""
        return next((entry for entry in self.stations if entry.station == station), None)


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
    return _canonical(StationStatement, payload, "station statement")


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
    return _canonical(StatementReceipt, verified.payload, "statement receipt")


def sign_heads(heads: StationHeads, witness: Signer) -> bytes:
    """Return the DSSE envelope of the witness's document."""
    return sign_envelope(canonical_json(heads), HEADS_PAYLOAD_TYPE, witness)


def open_heads(envelope: bytes, witness_keys: frozenset[str]) -> StationHeads:
    """Read the witness's document.

    Args:
        envelope: untrusted bytes.
        witness_keys: hex, of the timestamp role in the verified root.

    Raises:
        TrustError: not signed by one of them.
        DocumentError: signed, but not the document.
    """
    verified = verify_envelope(envelope, HEADS_PAYLOAD_TYPE, witness_keys, 1)
    return _canonical(StationHeads, verified.payload, "station heads")


_Model = TypeVar("_Model", bound=StrictModel)


def _canonical(model: type[_Model], payload: bytes, what: str) -> _Model:
    """Read the one form that a document of this module has: its digest can then be made from what it says."""
    document = load_json(model, payload, what=what, max_bytes=MAX_HEADS_BYTES)
    if canonical_json(document) != payload:
        raise DocumentError(f"{what}: is not in canonical form")
    return document


def held_against(standing: StationStatement, offered: StationStatement) -> Refused | None:
    """Decide whether a statement may follow the one that stands; the same statement again may.

    1. A later epoch must say that it was restored from the one that stands, or from a later one, and keep its budgets.
    2. Within an epoch, sequence, chains and counters only grow.
    3. One sequence has one statement; one place of a chain has one entry.
    """
    if offered.digest == standing.digest:
        return None
    # 1
    if offered.epoch < standing.epoch:
        return _rollback("an earlier epoch than was stated before")
    if offered.epoch > standing.epoch:
        return _restored_from(standing, offered)
    # 3
    if offered.sequence == standing.sequence:
        return _fork("another statement of the same sequence")
    for name, before, after in (
        ("audit", standing.audit, offered.audit),
        ("egress", standing.egress, offered.egress),
    ):
        if before.seq == after.seq and before.digest != after.digest:
            return _fork(f"the {name} chain has two entries at one place")
    # 2
    if offered.sequence < standing.sequence:
        return _rollback("an earlier statement than was stated before")
    if offered.audit.seq < standing.audit.seq or offered.egress.seq < standing.egress.seq:
        return _rollback("a chain is shorter than was stated before")
    return _rollback("a counter went back") if counters_lack(standing, offered) else None


def counters_lack(stated: StationStatement, found: StationStatement) -> bool:
    """Tell whether a counter of `found` is below what was stated; an order that expired meanwhile is no counter."""
    orders = {use.order: use for use in found.orders}
    for order in stated.orders:
        later = orders.get(order.order)
        if later is not None and (later.releases < order.releases or (order.finished and not later.finished)):
            return True
    before, after = stated.trust, found.trust
    return (
        _budgets_lack(stated, found)
        or after.root < before.root
        or after.timestamp < before.timestamp
        or after.targets < before.targets
        or after.register_version < before.register_version
        or (found.consent_sequence or 0) < (stated.consent_sequence or 0)
    )


def _budgets_lack(stated: StationStatement, found: StationStatement) -> bool:
    uses = {use.policy_id: use for use in found.policies}
    return any(
        (have := uses.get(use.policy_id)) is None
        or have.runs < use.runs
        or have.releases < use.releases
        or have.privacy < use.privacy
        for use in stated.policies
    )


def _restored_from(standing: StationStatement, offered: StationStatement) -> Refused | None:
    restored = offered.restored
    if restored is None:
        return _fork("a new epoch without a restoration")
    named, known = (restored.epoch, restored.sequence), (standing.epoch, standing.sequence)
    if named < known:
        return _fork("restored from an earlier statement than was stated since")
    if named == known and restored.statement != standing.digest:
        return _fork("restored from another statement than the one that stands")
    return _rollback("a budget went back with the restoration") if _budgets_lack(standing, offered) else None


def _fork(detail: str) -> Refused:
    return Refused.because(RefusalCode.STATEMENT_FORK, detail)


def _rollback(detail: str) -> Refused:
    return Refused.because(RefusalCode.STATEMENT_ROLLBACK, detail)
