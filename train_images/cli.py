"""`pht-train`: what a researcher types, from a train's folder to the result of a run.

Parses, calls one use case of `train_images.tool`, renders. Exit codes: `policies.errors.ExitCode`.
"""

from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, new_app, program, say, say_table

app = new_app("Write, try, pack and submit a train; order runs; watch them; fetch results.")


@app.callback()
def _program() -> None:
    """Keep the commands named, also while there is only one."""


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(help="Folder to make the hospitals in.")],
    hospitals: Annotated[int, typer.Option(help="How many hospitals, 1 to 26.")] = 3,
    patients: Annotated[int, typer.Option(help="Patients per hospital.")] = 60,
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal hospitals.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate made-up hospitals: chest radiographs (DICOM), an eCRF export and a consent list each."""
    from train_images.phantoms.hospitals import DEFAULT_SEED, generate_hospitals  # noqa: PLC0415

    made = generate_hospitals(
        out, hospitals=hospitals, patients=patients, seed=DEFAULT_SEED if seed is None else seed
    )
    if as_json:
        echo_json(made)
        return
    say_table(
        f"Made-up hospitals in {out}",
        ("hospital", "patients", "studies", "with pneumonia", "objections"),
        [(each.name, each.patients, each.studies, each.positive_studies, each.objections) for each in made],
    )
    say("Nobody in these files exists.")


main = program(app)

if __name__ == "__main__":
    main()
