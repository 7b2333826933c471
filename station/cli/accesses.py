"""`pht-station audit show`: what was done with one patient's data.

Intake says in which studies the patient was (it alone knows who that is), compute what was done under them (it alone knows
that); the two answers meet here, on the operator's screen, and nowhere else. Both services audit that they were asked.
"""

import csv
import io
import re
from typing import Annotated, Any

import typer

from policies.console import JsonOption, echo_json, say, say_table
from station.cli.reaching import HomeOption, compute_api, intake_api, operator_name
from station.cli.records import audit_app


@audit_app.command("show")
def audit_show(
    patient: Annotated[str, typer.Argument(help="The patient's id in the hospital.")],
    home: HomeOption,
    issuer: Annotated[str | None, typer.Option(help="Who gave that id out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What was done with one patient's data: when, by which train, for whom and why, and what left. Itself audited."""
    compute = compute_api(home)
    usage_list = compute.get_bytes("/v1/usage").decode()
    body = {"usage_list": usage_list, "patient_id": patient, "issuer": issuer}
    answer: dict[str, Any] = intake_api(home).post("/v1/usage/resolve", body)
    uses = list(csv.DictReader(io.StringIO(answer["csv"])))
    asked = {
        "actor": re.sub(r"[^A-Za-z0-9_.@-]", "_", operator_name())[:100] or "unknown",
        "uses": [{"order": use["order"], "cohort": use["cohort"]} for use in uses],
    }
    events: list[dict[str, Any]] = compute.post("/v1/accesses", asked)
    if as_json:
        echo_json({"uses": uses, "events": events})
        return
    if not uses:
        say("No train has been given this patient's data.")
        return
    titles = {use["order"]: use["title"] for use in uses}
    say_table(
        "Studies",
        ("train", "for", "purpose", "order", "first use", "last use"),
        [
            (
                f"{use['title']} ({use['policy']} v{use['version']})",
                use["requester"], use["purpose"], use["order"][7:19], use["first_use"], use["last_use"],
            )
            for use in uses
        ],
    )  # fmt: skip
    say_table(
        "What was done",
        ("when", "what", "train", "who", "on whose behalf", "purpose", "outcome"),
        [
            (
                event["time"], _what(event), titles.get(event["order"], event["order"][7:19]), event["actor"],
                event["on_behalf_of"] or "-", event["purpose"] or "-", event["outcome"],
            )
            for event in events
        ],
    )  # fmt: skip


def _what(event: dict[str, Any]) -> str:
    round_ = event["numbers"].get("round")
    return str(event["event"]).replace("-", " ") + (f", round {round_}" if round_ else "")
