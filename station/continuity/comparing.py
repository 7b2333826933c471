"""Are these records the newest there were? Holds them against one statement that this station signed at some time.

Whatever a station signed is evidence, whoever brings it: nobody else can make it. Reads the records, changes nothing.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policies.rules.statement_rules import counters_lack
from policies.station_heads import WitnessedStation
from policies.station_statement import ChainEnd, Restoration, StationStatement
from station.audit.chain import Chain
from station.audit.log import AUDIT_CHAIN
from station.continuity.tables import StatementRow
from station.egress.records.ledger import LEDGER_CHAIN


@dataclass(frozen=True, slots=True)
class Claim:
    """What was stated, as far as the witness's document tells it."""

    epoch: int
    sequence: int
    digest: str
    audit: ChainEnd
    egress: ChainEnd

    @classmethod
    def of(cls, statement: StationStatement) -> "Claim":
        """Return the claim of a whole statement."""
        return cls(statement.epoch, statement.sequence, statement.digest, statement.audit, statement.egress)

    @classmethod
    def witnessed(cls, entry: WitnessedStation) -> "Claim":
        """Return the claim of an entry of the witness's document."""
        return cls(entry.epoch, entry.sequence, entry.statement, entry.audit, entry.egress)


def setback(
    session: Session,
    epoch: int,
    restored: Restoration | None,
    claim: Claim,
    whole: tuple[StationStatement, StationStatement] | None = None,
) -> str | None:
    """Return how the records fall short of what was stated, in a sentence, or None where they do not.

    1. What was stated in an epoch before the present one was reconciled with, unless the reconciliation did not know of it.
    2. A later epoch, a later statement, or another one of the same number: it was made elsewhere.
    3. Each chain reaches the entry that was stated, and holds it.
    4. No counter is lower.

    Args:
        session: sees the records as they are.
        epoch: the present one.
        restored: what began it; None in the first.
        claim: what was stated.
        whole: the statement, and what would be stated now; None where only the claim is known.
    """
    # 1
    if claim.epoch < epoch:
        if restored is not None and (claim.epoch, claim.sequence) > (restored.epoch, restored.sequence):
            return "reconciled with an earlier statement than was made"
        return None
    # 2
    if claim.epoch > epoch:
        return f"a later epoch ({claim.epoch}) was stated than these records know ({epoch})"
    last = session.scalar(select(func.max(StatementRow.sequence))) or 0
    if claim.sequence > last:
        return f"statement {claim.sequence} was made; these records end at {last}"
    own = session.get(StatementRow, claim.sequence)
    if own is not None and own.digest != claim.digest:
        return f"another statement {claim.sequence} was made than these records hold"
    # 3
    for chain, end in ((AUDIT_CHAIN, claim.audit), (LEDGER_CHAIN, claim.egress)):
        if problem := _chain_problem(session, chain, end):
            return problem
    # 4
    if whole is not None and counters_lack(*whole):
        return "a counter is lower than was stated"
    return None


def _chain_problem(session: Session, chain: Chain, end: ChainEnd) -> str | None:
    if end.seq == 0:
        return None
    digest = chain.digest_at(session, end.seq)
    if digest is None:
        return f"the {chain.name} chain ends before entry {end.seq}, which was stated"
    if digest != end.digest:
        return f"entry {end.seq} of the {chain.name} chain is another than was stated"
    return None
