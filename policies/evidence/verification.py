"""Is a pack what it claims? Decided offline, by a reader who trusts the board's root and nothing else.

The steps, in order; a step that does not hold names the file and the reason, and what depends on it is not asked:

1. Container: every byte of the zip is accounted for (`policies.evidence.archive`).
2. Files: each has the digest that the description and the station's statement give it, and there are no others.
3. Repository: TUF from the reader's root, judged at the moment of the run.
4. Board: the policy and the register are listed there and signed as the charter demands; so are opinions and purposes.
5. Order: signed by the key that the policy names, within the policy; the train is the one that the policy names. Purposes,
   register and withdrawals permit it, by the rules that admission asks.
6. Statement: signed with the key that the register gives the station; it tells of this order under this policy.
7. Ledger: the run's entries stand at their places in the chain that ends in the signed head; each release is one of them.

What this cannot show: that the station left out nothing. The head in the statement is held against the heads that others
countersigned, and against the station's own ledger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from policies.errors import DocumentError, TrustError
from policies.evidence.archive import STATEMENT, Pack, PackDamageError, open_pack
from policies.evidence.files import check_files
from policies.evidence.published import check_board, check_repository
from policies.evidence.reading import Reading
from policies.evidence.run_steps import check_entries, check_order, check_statement
from policies.evidence.statement import MAX_STATEMENT_ENVELOPE_BYTES, PAYLOAD_TYPE, RunFact, RunStatement
from policies.signing import unsafe_payload

Step = Literal["container", "files", "repository", "board", "order", "statement", "ledger"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found.

    Attributes:
        step: which.
        holds: whether it does.
        where: the file that is wrong; empty where it holds.
        text: what was checked, or what is wrong.
    """

    step: Step
    holds: bool
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome: every step's finding, and the run where its statement holds."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    run: RunFact | None

    @property
    def holds(self) -> bool:
        """Whether every step does."""
        return self.run is not None and all(finding.holds for finding in self.findings)


def verify_pack(path: Path, root: bytes, now: datetime) -> Verdict:
    """Verify a pack.

    Args:
        path: the pack, untrusted.
        root: root metadata that the reader has from the board itself.
        now: the moment it is: only to say what is expired by now.

    Raises:
        StorageError: the file cannot be read.
    """
    findings: list[Finding] = []
    try:
        with open_pack(path) as pack:
            findings.append(
                Finding("container", True, "", f"{len(pack.names)} files, every byte accounted for")
            )
            return _verify(pack, root, now, findings)
    except PackDamageError as error:
        step: Step = "container" if not findings else "files"
        findings.append(Finding(step, False, error.where, error.problem))
        return Verdict(tuple(findings), (), None)


def _verify(pack: Pack, root: bytes, now: datetime, findings: list[Finding]) -> Verdict:
    try:
        claim = _claim(pack)
    except (DocumentError, TrustError) as error:
        findings.append(Finding("files", False, STATEMENT, error.message))
        return Verdict(tuple(findings), (), None)
    reading = Reading(pack, root, now, claim)
    steps: tuple[tuple[Step, Callable[[Reading], str]], ...] = (
        ("files", lambda reading: check_files(reading.pack, reading.claim.files)),
        ("repository", check_repository),
        ("board", check_board),
        ("order", check_order),
        ("statement", check_statement),
        ("ledger", check_entries),
    )
    for step, check in steps:
        try:
            findings.append(Finding(step, True, "", check(reading)))
        except PackDamageError as error:
            findings.append(Finding(step, False, error.where, error.problem))
            return Verdict(tuple(findings), tuple(reading.notes), None)
    return Verdict(tuple(findings), tuple(reading.notes), claim)


def _claim(pack: Pack) -> RunFact:
    """Read what the station claims; whether it said so is step 6."""
    return RunStatement.decode(
        unsafe_payload(pack.read(STATEMENT), PAYLOAD_TYPE, max_bytes=MAX_STATEMENT_ENVELOPE_BYTES)
    ).predicate
