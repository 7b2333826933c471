"""`pht-station predictions`: what trains marked and measured in the hospital's own images, as far as the hospital keeps it."""

from policies.console import JsonOption, echo_json, say, say_table
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api


@app.command()
def predictions(home: HomeOption, as_json: JsonOption = False) -> None:
    """What trains marked and measured in the hospital's own images, and how much of it is kept: counts, nobody is named."""
    view = compute_api(home).get("/v1/predictions")
    if as_json:
        echo_json(view)
        return
    if view["folder"] is None:
        say("No train is asked for predictions: predictions.folder is not set.")
    else:
        say(f"Kept in {view['folder']}, for research only and not for diagnosis; nothing of it leaves.")
    say_table(
        "Predictions",
        ("written", "policy", "order", "round", "what", "kind", "kept", "removed", "bytes"),
        [
            (
                row["written"], row["policy"], row["order"][7:19], str(row["round"]), row["name"], row["kind"], str(row["kept"]),
                str(row["removed"]), str(row["size_bytes"]),
            )
            for row in view["runs"]
        ],
    )  # fmt: skip
