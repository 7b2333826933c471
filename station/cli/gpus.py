"""`pht-station gpus`: every GPU of this host, who has it, and why it is not free."""

from policies.console import JsonOption, echo_json, say, say_table
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api


@app.command()
def gpus(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every GPU of this host: leased, free, or why not; and what a train with one sees of the host."""
    report = compute_api(home).get("/v1/gpus")
    if as_json:
        echo_json(report)
        return
    say(f"Driver: {report['driver'] or 'none'}")
    if report["problem"]:
        say(f"No GPU is leased: {report['problem']}")
    say_table(
        "GPUs",
        ("device", "name", "MiB", "state", "run", "why"),
        [
            (
                each["uuid"],
                each["name"],
                str(each["memory_mib"]),
                each["state"],
                each["run_id"],
                each["reason"],
            )
            for each in report["devices"]
        ],
    )
    say("A train with a GPU sees of the host, beside its cohort and its control socket:")
    for line in report["exceptions"]:
        say(f"  {line}")
