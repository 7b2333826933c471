"""Trains: who waits, who runs, and the operator's word."""

from pathlib import Path
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, say, say_table
from policies.errors import NotFoundError, RefusedError, UsageError
from policies.refusal_texts import text_of
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api, operator_name
from station.cli.tables import show_runs

OrderArgument = Annotated[
    str,
    typer.Argument(
        help="The order's digest, or enough of it to be the only one; the id that its researcher was told; or a policy: its newest order."
    ),
]


@app.command()
def trains(home: HomeOption, as_json: JsonOption = False) -> None:
    """Trains that wait for the operator's word, with how well patients hide in what each would see."""
    api = compute_api(home)
    rows = [row for row in api.get("/v1/runs") if row["operator"] == "pending"]
    for row in rows:
        row["anonymity"] = _anonymity(api, row["order"])
    show_runs("Waiting for your word", rows, as_json=as_json)
    if not as_json:
        for row in rows:
            if row["anonymity"] is not None:
                say("{order:12} k = {k}: {patients_below} of {patients} patients in classes of fewer than {wanted}".format(
                    order=row["order"].removeprefix("sha256:")[:12], **row["anonymity"]
                ))  # fmt: skip


@app.command()
def runs(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every order this station has seen."""
    show_runs("Runs", compute_api(home).get("/v1/runs"), as_json=as_json)


@app.command()
def approve(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Let a waiting train run here."""
    _word(home, order, "approve", as_json=as_json)


@app.command()
def hold(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Keep a train from running here; approve lets it on again."""
    _word(home, order, "hold", as_json=as_json)


@app.command()
def stop(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Stop a run for good: its container is killed and its scratch wiped."""
    _word(home, order, "stop", as_json=as_json)


@app.command()
def explain(order: OrderArgument, home: HomeOption, as_json: JsonOption = False) -> None:
    """Every rule of board, hospital, consent, data and resources, with its verdict now."""
    api = compute_api(home)
    rules = api.get(f"/v1/runs/{full_order(api, order)}/explain")
    for rule in rules:
        for reason in rule["reasons"]:
            reason["do"] = text_of(reason["code"]).do
    if as_json:
        echo_json(rules)
    else:
        say_table(
            "Would it run now?",
            ("rule", "verdict", "why"),
            [
                [
                    r["rule"],
                    r["verdict"],
                    "; ".join(f"{x['code']} {x['detail']}".strip() for x in r["reasons"]) or r["note"],
                ]
                for r in rules
            ],
        )
    refused = {reason["code"]: reason["do"] for rule in rules for reason in rule["reasons"]}
    if refused:
        if not as_json:
            say("\nWhat to do")
            for code, what in refused.items():
                say(f"  {code}: {what}")
        raise RefusedError(next(iter(refused)), "It would not run here now.", hint="The rules above say why.")


@app.command()
def logs(order: OrderArgument, home: HomeOption) -> None:
    """What a train printed; it never leaves the station."""
    api = compute_api(home)
    say(api.get_bytes(f"/v1/runs/{full_order(api, order)}/logs").decode("utf-8", "replace"))


def _anonymity(api: Any, order: str) -> dict[str, Any] | None:  # noqa: ANN401 - LocalApi, imported late
    """Return what the operator should see before approving, or None where the order would get no cohort."""
    try:
        found: dict[str, Any] = api.get(f"/v1/runs/{order}/anonymity")
    except RefusedError:
        return None
    return found


def _word(home: Path, order: str, word: str, *, as_json: bool) -> None:
    api = compute_api(home)
    view = api.post(f"/v1/runs/{full_order(api, order)}/{word}", {"actor": operator_name()})
    show_runs(word, [view], as_json=as_json)


def full_order(api: Any, start: str) -> str:  # noqa: ANN401 - LocalApi, imported late
    """Return the one order that an operator means: by its digest, what a researcher was told of it, or the newest under a policy.

    Raises:
        NotFoundError: none starts so.
        UsageError: several do.
    """
    rows = api.get("/v1/runs")
    of_policy = [row for row in rows if row["policy"] == start]
    if of_policy:
        return str(max(of_policy, key=lambda row: row["seen"])["order"])
    told = [row["order"] for row in rows if row["correlation_id"] == start]
    matches = told or [
        row["order"]
        for row in rows
        if row["order"].removeprefix("sha256:").startswith(start.removeprefix("sha256:"))
    ]
    if not matches:
        raise NotFoundError(
            f"no order starts with {start!r}, and none is of a policy of that name",
            hint="`pht-station runs` lists them; an order that is not there never came, or its requester's signature did not hold: see the audit.",
        )
    if len(matches) > 1:
        raise UsageError(f"{len(matches)} orders start with {start!r}", hint="Give more of the digest.")
    return str(matches[0])
