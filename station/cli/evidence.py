"""The evidence of a run: what permitted it, what was run and what left, for whoever has to be convinced."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from policies.console import JsonOption, echo_json, say
from policies.errors import StorageError, UsageError
from policies.files import sync_folder
from station.cli.program import app
from station.cli.reaching import HomeOption, compute_api
from station.cli.trains import OrderArgument, full_order


@app.command()
def evidence(
    order: OrderArgument,
    out: Annotated[Path, typer.Argument(help="The pack to write (zip); never overwrites one.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Write a run's evidence as an RO-Crate that verifies from the board's root; nothing about a patient is in it."""
    if out.exists():
        raise UsageError(f"{out.name}: is there already", hint="Name a new file.")
    api = compute_api(home)
    digest = full_order(api, order)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        with os.fdopen(descriptor, "wb") as file:
            api.download(f"/v1/runs/{digest}/evidence", file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(out)
        temporary = None
        sync_folder(out.parent)
    except OSError as error:
        raise StorageError(
            f"{out.name} cannot be written ({error.strerror})", hint="Name another place."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    if as_json:
        echo_json({"order": digest, "pack": str(out), "bytes": out.stat().st_size})
        return
    say(f"Wrote {out}: {out.stat().st_size} bytes.")
    say("Whoever has the board's root checks it: pht-board evidence verify PACK --root 1.root.json")
