"""What the commands share: the home's argument, the home, its services, and who is asking.

What the services are made of takes more than a second to import: modules of commands import it where a command needs it, so that
``--help`` and an option that is wrong answer at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orchestrator.registry.access import Principal
    from orchestrator.services import Services
    from orchestrator.settings import Home

HomeArgument = Annotated[Path, typer.Argument(help="The orchestrator's folder.", metavar="HOME")]


def home_at(path: Path) -> "Home":
    """Return the home that an argument names."""
    from orchestrator.settings import Home  # noqa: PLC0415 - starts faster without

    return Home(path.absolute())


def services(path: Path) -> "Services":
    """Open a home."""
    from orchestrator.services import open_services  # noqa: PLC0415

    return open_services(home_at(path))


def operator() -> "Principal":
    """Return who types, as the registry knows them."""
    from orchestrator.registry.access import OPERATOR_HERE  # noqa: PLC0415

    return OPERATOR_HERE
