"""`pht-station privacy`: what noisy releases have cost the hospital's patients."""

from policies.console import JsonOption, echo_json, say, say_table
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api


@app.command()
def privacy(home: HomeOption, as_json: JsonOption = False) -> None:
    """What is spent of every patient's privacy budget, and under which policies (differential privacy)."""
    view = compute_api(home).get("/v1/privacy")
    if as_json:
        echo_json(view)
        return
    say(f"The hospital grants each patient epsilon {view['epsilon']:g} at delta {view['delta']:g}, for good.")
    say(f"Charged so far: {view['patients']} patients, the most of them epsilon {view['most']:.3g}.")
    if view["lost"]:
        say(
            f"Of it epsilon {view['lost']:.3g} counts for everybody: whom it was charged to was lost with a restore."
        )
    say_table(
        "Patients by what they were charged",
        ("epsilon up to", "patients"),
        [(f"{each['up_to']:.3g}", str(each["patients"])) for each in view["spent"]],
    )
    say_table(
        "Policies",
        ("policy", "draws", "released", "patients", "most", "last"),
        [
            (
                each["policy"],
                str(each["draws"]),
                str(each["released"]),
                str(each["patients"]),
                f"{each['most']:.3g}",
                each["last"],
            )
            for each in view["policies"]
        ],
    )
