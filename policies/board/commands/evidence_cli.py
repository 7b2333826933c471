"""The commands of `pht-board` about evidence: is a pack what it claims, judged from the board's root alone?"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import JsonOption, echo_json, new_app, one_line, say, say_line
from policies.errors import TrustError

if TYPE_CHECKING:
    from policies.evidence.statement import RunFact
    from policies.evidence.verification import Verdict

evidence_app = new_app("The evidence of a run, as a station gives it out.")


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(evidence_app, name="evidence")


@evidence_app.command("verify")
def evidence_verify(
    pack: Annotated[
        Path, typer.Argument(help="The pack (zip) that a hospital gave.", exists=True, dir_okay=False)
    ],
    root: Annotated[
        Path,
        typer.Option(
            "--root", help="The board's 1.root.json, from the board itself.", exists=True, dir_okay=False
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Verify a pack offline: repository, policy, order, train, the station's word, and its ledger."""
    from policies.evidence import verify_pack  # noqa: PLC0415 - each command loads what it needs

    verdict = verify_pack(pack, root.read_bytes(), datetime.now(UTC))
    if as_json:
        echo_json(_as_json(verdict))
    else:
        _show(verdict)
    if not verdict.holds:
        broken = next(finding for finding in verdict.findings if not finding.holds)
        raise TrustError(
            f"{broken.where}: {broken.text}", hint="This pack proves nothing. Ask the hospital for it again."
        )


def _show(verdict: "Verdict") -> None:
    for finding in verdict.findings:
        text = finding.text if finding.holds else f"{finding.where}: {finding.text}"
        say(f"{'holds' if finding.holds else 'BROKEN':7}{finding.step:12}{one_line(text)}")
    for note in verdict.notes:
        say(f"{'note':7}{one_line(note)}")
    if verdict.run is not None:
        say()
        for line in _in_words(verdict.run):
            say_line(line)


def _in_words(run: "RunFact") -> list[str]:
    size = sum(release.reply_bytes + (release.arrays_bytes or 0) for release in run.releases)
    refused = ", ".join(f"{code} ({times}x)" for code, times in run.refusals.items()) or "nothing"
    under = f"{run.policy.id}, version {run.policy.version}"
    return [
        f"{run.station} ran order {run.order.digest[7:19]} under {under}: {run.state}.",
        f"Left the hospital: {len(run.releases)} releases, {size:,} bytes together.",
        f"Differential privacy spent: {run.privacy_spent.mechanism}.",
        f"Refused or failed on the way: {refused}.",
        "Where its chains stood after the run, to hold against heads that others countersigned:",
        f"  ledger {run.egress.head.seq} {run.egress.head.digest}",
        f"  audit {run.audit.seq} {run.audit.digest}",
    ]


def _as_json(verdict: "Verdict") -> dict[str, Any]:
    return {
        "holds": verdict.holds,
        "findings": [asdict(finding) for finding in verdict.findings],
        "notes": list(verdict.notes),
        "run": None if verdict.run is None else verdict.run.model_dump(mode="json"),
    }
