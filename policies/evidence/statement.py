"""What a station says of one run, and signs: an in-toto statement with a predicate of our own.

Holds what left, under which rules, and where it stands in the station's hash chains. Holds nothing about a patient: no
pseudonym, no count but the rounded ones that left with the releases, no refusal that tells of one person's objection.

Source: in-toto Attestation Framework v1.0, Statement layer.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from policies.documents import Digest, Moment, Name, Sequence, StrictModel, canonical_json, load_json
from policies.order import Stage
from policies.refusals import RefusalCode

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://pht-radiology.example/provenance/station-run/v1"
MAX_FILES = 4096
MAX_RELEASES = 20_000
"""Two for each of the rounds that an order can have."""

MAX_STATEMENT_BYTES = 24 << 20
MAX_STATEMENT_ENVELOPE_BYTES = MAX_STATEMENT_BYTES * 4 // 3 + 64 * 1024

UNTOLD_CODES = frozenset({RefusalCode.CONSENT_WITHDRAWN.value})
"""A code that stands for what one patient did: it is in the hospital's audit, and in no pack."""

Count = Annotated[int, Field(ge=0)]
MemberPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
"""A file's place in the pack: plain names, no step upwards."""


class Head(StrictModel):
    """The end of a hash chain: how many entries, and the digest of the last."""

    seq: Count
    digest: Digest


class OrderFact(StrictModel):
    """Which order was run."""

    digest: Digest
    order_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class PolicyFact(StrictModel):
    """Under which policy."""

    id: Name
    version: Annotated[int, Field(ge=1)]
    digest: Digest


class RepositoryFact(StrictModel):
    """Which verified state of the board's repository the run was admitted under, and when."""

    root_version: Annotated[int, Field(ge=1)]
    timestamp_version: Annotated[int, Field(ge=1)]
    snapshot_version: Annotated[int, Field(ge=1)]
    targets_version: Annotated[int, Field(ge=1)]
    admitted_at: Moment


class ReleaseFact(StrictModel):
    """One release: what left, never its content.

    Attributes:
        examples: the count that left with it, rounded as it left.
        ledger_seq: its place in the egress ledger.
    """

    round: Count
    stage: Stage
    reply_digest: Digest
    reply_bytes: Count
    arrays_digest: Digest | None
    arrays_bytes: Count | None
    rules_digest: Digest | None
    examples: Count
    ledger_seq: Annotated[int, Field(ge=1)]
    recorded: Moment


class LedgerFact(StrictModel):
    """This run's place in the egress ledger.

    Attributes:
        first: the number of the run's first entry.
        entries: how many entries are the run's.
        head: the ledger's end just after the run's last entry.
    """

    first: Annotated[int, Field(ge=1)]
    entries: Annotated[int, Field(ge=1)]
    head: Head


class PrivacyFact(StrictModel):
    """The differential privacy that the releases spent."""

    mechanism: Literal["none"] = "none"
    epsilon: None = None
    delta: None = None


class RunFact(StrictModel):
    """The predicate.

    Attributes:
        state: of the order at this station.
        as_of: the moment of the last thing said here.
        refusals: how many entries of the audit name each code; `UNTOLD_CODES` left out.
        audit: the audit's end just after the run's last event.
        files: the digest of every other file of the pack.
    """

    schema_version: Literal[1] = 1
    station: Name
    order: OrderFact
    policy: PolicyFact
    manifest_digest: Digest
    image_config_digest: Digest
    stages: Sequence[Stage]
    rounds: Annotated[int, Field(ge=1)]
    state: Name
    first_seen: Moment
    finished: Moment | None
    as_of: Moment
    repository: RepositoryFact
    releases: Sequence[ReleaseFact] = Field(max_length=MAX_RELEASES)
    refusals: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,63}$")], Count] = Field(max_length=200)
    privacy_spent: PrivacyFact
    egress: LedgerFact
    audit: Head
    files: dict[MemberPath, Digest] = Field(max_length=MAX_FILES)


class SubjectDigest(StrictModel):
    """A digest as in-toto writes it."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Subject(StrictModel):
    """One thing that the statement is about."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    digest: SubjectDigest


class RunStatement(StrictModel):
    """The in-toto statement: its subjects are the order and what was released under it."""

    model_config = ConfigDict(populate_by_name=True)

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")] = STATEMENT_TYPE
    subject: Sequence[Subject] = Field(min_length=1)
    predicate_type: Annotated[
        Literal["https://pht-radiology.example/provenance/station-run/v1"], Field(alias="predicateType")
    ] = PREDICATE_TYPE
    predicate: RunFact

    @model_validator(mode="after")
    def _about_what_it_says(self) -> "RunStatement":
        if self.subject != subjects_of(self.predicate):
            raise ValueError("the subjects are not the order and the releases of the predicate")
        return self

    @classmethod
    def about(cls, run: RunFact) -> "RunStatement":
        """Return the statement about a run."""
        return cls(subject=subjects_of(run), predicate=run)

    def encode(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def decode(cls, data: bytes) -> "RunStatement":
        """Read a statement.

        Raises:
            DocumentError: it is not one.
        """
        return load_json(cls, data, what="statement", max_bytes=MAX_STATEMENT_BYTES)


def subjects_of(run: RunFact) -> tuple[Subject, ...]:
    """Return what a statement about a run is about: the order, and each release's files."""
    found = [("order", run.order.digest)]
    for release in run.releases:
        name = f"release/{release.round}/{release.stage}"
        found.append((f"{name}/reply", release.reply_digest))
        if release.arrays_digest is not None:
            found.append((f"{name}/arrays", release.arrays_digest))
    return tuple(
        Subject(name=name, digest=SubjectDigest(sha256=digest.removeprefix("sha256:")))
        for name, digest in found
    )
