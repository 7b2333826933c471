"""The station's records against what was countersigned of them: `audit heads`, and `reconcile` after a restore."""

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import RefusedError, UsageError
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, operator_name
from station.cli.records import audit_app


@audit_app.command("heads")
def audit_heads(home: HomeOption, as_json: JsonOption = False) -> None:
    """What was countersigned last of the audit and the ledger, and how old that is."""
    view: dict[str, Any] = compute_api(home).get("/v1/heads")
    if as_json:
        echo_json(view)
    else:
        say(
            f"epoch {view['epoch']}; the records are {view['standing']}{': ' if view['why'] else ''}{view['why']}"
        )
        rows = [
            ("stated", view["stated"], view["stated_at"]),
            ("countersigned by the orchestrator", view["countersigned"], view["countersigned_at"]),
            ("named by the board's witness", view["witnessed"], view["witness_signed"]),
        ]
        say_table(
            "Statements",
            ("", "statement", "when", "age"),
            [(what, number or "none", when or "-", _age(when)) for what, number, when in rows],
        )
        say(f"newest: audit entry {view['audit']}, egress entry {view['egress']}")
    if view["standing"] != "good":
        raise RefusedError(view["standing"], view["why"], hint="`pht-station reconcile` shows what to do.")


@app.command()
def reconcile(
    home: HomeOption,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: what is shown has been read.")] = False,
    as_json: JsonOption = False,
) -> None:
    """After a restore: take over what was countersigned, count lost orders as spent, and begin a new epoch."""
    api = compute_api(home)
    plan: dict[str, Any] = api.get("/v1/reconcile")
    if not as_json:
        _show(plan)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "there is no terminal to ask for a yes", hint="Give --yes once you have read it."
            )
        if input("Reconcile? Type yes: ").strip().lower() != "yes":
            raise typer.Abort
    done = api.post("/v1/reconcile", {"actor": operator_name()})
    if as_json:
        echo_json(done)
        return
    say(f"Reconciled: epoch {done['epoch'] + 1} begins.")
    say(
        "Now import the consent register as it is at its source: `pht-station consent import`. Until then nothing runs."
    )


def _show(plan: dict[str, Any]) -> None:
    say(f"These records are not the newest: {plan['problem']}.")
    say(f"  newest statement   {plan['stated_sequence']} of {plan['stated_at']}")
    say(f"  newest here        {plan['own_sequence'] or 'none'}")
    for name in ("audit", "egress"):
        lost = plan[f"lost_{name}"]
        if lost["last"] >= lost["first"]:
            say(f"  {name:6} entries that may be lost: {lost['first']} to {lost['last']}")
    say_table(
        "Used more than is on record here",
        ("policy", "runs", "releases"),
        [
            (
                row["policy"],
                f"{row['runs_here']} -> {row['runs_stated']}",
                f"{row['releases_here']} -> {row['releases_stated']}",
            )
            for row in plan["lacks"]
        ],
    )
    if lost := [row["policy"] for row in plan["lacks"] if row["privacy_lost"]]:
        say(
            f"Noise was drawn under {', '.join(lost)} that is on no record here: it is charged to every patient."
        )
    say(
        f"Orders that count as spent: {len(plan['orders_spent'])} stated, {len(plan['orders_stopped'])} under way here,"
    )
    say("and every order issued before now: what it did may be among what was lost.")


def _age(when: str | None) -> str:
    if when is None:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"
