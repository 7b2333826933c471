"""What the operator sees: the documents of the local API, and the desk that fills them.

The desk is a `Protocol`: `station.runs.desk` implements it on the station's state. Nothing here leaves the hospital.
"""

from pathlib import Path
from typing import Literal, Protocol

from policies.documents import Moment, StrictModel


class ReasonView(StrictModel):
    """A rule that refused, with the detail that stays inside."""

    code: str
    detail: str


class RuleView(StrictModel):
    """One rule's verdict on one order."""

    rule: str
    verdict: Literal["yes", "no"]
    reasons: list[ReasonView]
    note: str = ""


class AnonymityView(StrictModel):
    """How well patients hide among each other in the clinical table that a train would see.

    Attributes:
        k: the size of the smallest class of patients who look alike.
        wanted: the size that classes should have.
        patients_below: how many are in a smaller one.
        enforced: whether the hospital refuses a cohort with a smaller k.
    """

    k: int
    wanted: int
    patients: int
    classes: int
    patients_below: int
    enforced: bool


class RunView(StrictModel):
    """One run order at this station."""

    order: str
    policy: str
    version: int
    title: str
    requester: str
    state: str
    operator: str
    rounds: int
    stages: list[str]
    releases: int
    failures: int
    reasons: list[ReasonView]
    correlation_id: str
    seen: Moment


class ReleaseView(StrictModel):
    """One thing that left."""

    order: str
    policy: str
    round: int
    stage: str
    digest: str | None
    size: int
    metrics: dict[str, float]
    suppressed: list[str]
    released: Moment
    type: str = "release"
    reply_digest: str = ""
    reply_size: int = 0
    run: str = ""
    rules_digest: str | None = None
    purged: Moment | None = None
    """When its payload went; what is still said of it the ledger says."""
    capacity_bits: int | None = None
    """The most that it could carry out of the train's choosing; None of releases from before that was counted."""


class CollectionView(StrictModel):
    """What the station holds of one collection, rounded to ten."""

    name: str
    patients: int
    studies: int
    images: int


class StatusView(StrictModel):
    """Is the station well?"""

    station: str
    orchestrator_contact: Moment | None
    engine: str
    gpus: str
    policies: str
    policy_count: int
    consent_sequence: int | None
    consent_source: Moment | None
    handover: str
    runs_active: int
    separation: str
    records: str


class ChainView(StrictModel):
    """The result of verifying a hash chain."""

    chain: Literal["audit", "egress"]
    intact: bool
    entries: int
    head: str
    broken_at: int | None = None
    problem: str = ""


class Desk(Protocol):
    """The use cases of the station's operator."""

    def status(self) -> StatusView:
        """How the station is."""

    def runs(self) -> list[RunView]:
        """Every order this station has seen."""

    def decide(self, order: str, word: Literal["approve", "hold", "stop"], actor: str) -> RunView:
        """Record the operator's word, audited first.

        Raises:
            NotFoundError: no such order.
            UsageError: the run is in no state for it.
        """

    def explain(self, order: str) -> list[RuleView]:
        """Every rule of board, hospital, consent, data and resources with its verdict now."""

    def anonymity(self, order: str) -> AnonymityView:
        """The k-anonymity of the clinical table that an order's train would see now.

        Raises:
            NotFoundError: no such order.
            RefusedError: it would get no cohort at all.
        """

    def releases(self) -> list[ReleaseView]:
        """Everything that left."""

    def payload(self, order: str, round_: int, stage: str, part: Literal["reply", "arrays"]) -> bytes | Path:
        """The very bytes that left: the reply, or the file beside it; audited first.

        Raises:
            NotFoundError: there is no such release, or none of it beside the reply.
            RefusedError: it was purged.
        """

    def collections(self) -> list[CollectionView]:
        """What the station holds."""

    def logs(self, order: str) -> str:
        """What the train printed, bounded; for the operator alone."""

    def verify(self, chain: Literal["audit", "egress"]) -> ChainView:
        """Check a chain from its first entry."""

    def export(self, chain: Literal["audit", "egress"]) -> bytes:
        """The chain as JSON lines, with the station's signature over its head."""

    def evidence(self, order: str) -> Path:
        """Write the evidence pack of an order's run to a file that the caller removes; audited first.

        Raises:
            NotFoundError: no such order, or it never was admitted.
        """

    def usage(self, policy: str | None) -> bytes:
        """Whose data were used in which study, by pseudonym, signed for intake to read."""
