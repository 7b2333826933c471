"""What the commands share: the home's argument, the home, and its services."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.services import Services, open_services
from orchestrator.settings import Home

HomeArgument = Annotated[Path, typer.Argument(help="The orchestrator's folder.", metavar="HOME")]


def home_at(path: Path) -> Home:
    """Return the home that an argument names."""
    return Home(path.absolute())


def services(path: Path) -> Services:
    """Open a home."""
    return open_services(home_at(path))
