"""What the guard answers: a release, or what was withheld and why. Only `station.egress.guard` makes these.

A `Release` is the one type whose content may leave (invariant I1); a test holds that no other module constructs it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NewType, Self

from policies.order import Stage
from policies.refusals import Reason, RefusalCode
from policies.wire.instructions import Blob, Kind, StationReply, Status
from station.egress.analyses.exact import ExactTable
from station.egress.differencing.comparing import Verdict

Table = tuple[tuple[int | float, ...], ...]
Decimal = NewType("Decimal", float)
"""A number rounded to its declared decimals, within its declared range."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """An output that a rule left out of a release that may otherwise leave.

    Attributes:
        key: the output's declared key.
        code: the rule.
        detail: why, in words; for the screen of a dry run, and never part of a reply, a parked release or a record.
    """

    key: str
    code: RefusalCode
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReleasedArrays:
    """The canonical file of released deltas."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Release:
    """What may leave, whole.

    Attributes:
        order_digest: whose run.
        round: of the run.
        stage: what was asked.
        arrays: the deltas, or None.
        metrics: rounded and within range.
        tables: whole numbers of patients; sums and edges of bins may have decimals.
        suppressed: declared outputs that were left out, with the rule.
        num_examples: the station's own count, rounded.
        rules_digest: the rule set it passed.
        counted: of each table, what the station counted before anything was hidden of it. It never leaves: later releases are held
            against it.
        beside: what of it was held against earlier releases; None where it was not, and is not to be.
        capacity_bits: an upper bound on what it can carry out of the train's choosing, by these rules and its own tensors.
    """

    order_digest: str
    round: int
    stage: Stage
    arrays: ReleasedArrays | None
    metrics: Mapping[str, Decimal | int]
    tables: Mapping[str, Table]
    suppressed: tuple[Suppressed, ...]
    num_examples: int
    rules_digest: str
    capacity_bits: int
    counted: tuple[ExactTable, ...] = ()
    beside: Verdict | None = None

    def without(self, keys: Collection[str], code: RefusalCode) -> Self:
        """Return the release with some of its metrics and tables left out, by the rule that the code names."""
        return replace(
            self,
            metrics={key: value for key, value in self.metrics.items() if key not in keys},
            tables={key: table for key, table in self.tables.items() if key not in keys},
            suppressed=(*self.suppressed, *(Suppressed(key, code) for key in sorted(keys))),
            counted=tuple(exact for exact in self.counted if exact.key not in keys),
        )

    def beside_others(self, verdict: Verdict) -> Self:
        """Return the release without what may not be told beside earlier ones, and with what is told by it."""
        kept = self.without(verdict.left_out, RefusalCode.RELEASE_DIFFERENCE)
        return replace(kept, beside=verdict)


@dataclass(frozen=True, slots=True)
class Withheld:
    """Nothing leaves but the first reason's code.

    Raises:
        ValueError: without a reason.
    """

    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if not self.reasons:
            raise ValueError("what is withheld names its rule")

    @property
    def code(self) -> RefusalCode:
        """What an outside party is told."""
        return self.reasons[0].code


@dataclass(frozen=True, slots=True)
class ReplyStamp:
    """What a reply carries beside the release.

    Attributes:
        attempt: of the instruction it answers first.
        correlation_id: of the run.
        compute_s: seconds of compute, in the policy's quantum.
        ledger_head: digest of the egress ledger's head before this reply.
        audit_head: digest of the audit's head.
    """

    attempt: int
    correlation_id: str
    compute_s: float
    ledger_head: str | None
    audit_head: str | None


def released_reply(release: Release, stamp: ReplyStamp) -> StationReply:
    """Return the reply that carries a release."""
    arrays = release.arrays
    return StationReply(
        order_digest=release.order_digest,
        kind=Kind(release.stage),
        round=release.round,
        attempt=stamp.attempt,
        status=Status.RELEASED,
        correlation_id=stamp.correlation_id,
        release=None if arrays is None else Blob(digest=arrays.digest, size=arrays.size),
        metrics=dict(release.metrics),
        tables={key: [list(row) for row in table] for key, table in release.tables.items()},
        num_examples=release.num_examples,
        compute_s=stamp.compute_s,
        egress_ledger_head=stamp.ledger_head,
        audit_head=stamp.audit_head,
    )
