"""`pht-orchestrator` answers at once where nothing of a home is asked, and its choices are those of the parts behind it."""

import subprocess
import sys
from enum import StrEnum

import pytest

from orchestrator.backup import BlobsIn, KeysIn
from orchestrator.commands.state import BlobsChoice, KeysChoice
from orchestrator.commands.tokens import RoleChoice
from orchestrator.registry.access import Role

HEAVY = (
    "flwr", "sqlalchemy", "alembic", "numpy", "cryptography", "tuf", "fastapi", "uvicorn", "httpx", "orchestrator.services",
)  # fmt: skip
"""What the commands need when they run, and take more than a second to import."""


@pytest.mark.parametrize("words", [("--help",), ("token", "new", "--help"), ("backup", "--keys", "none")])
def test_help_and_wrong_options_load_nothing_of_a_home(words: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli import app\n"
        "from policies.console import run\n"
        f"run(app, {list(words)!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Usage" in done.stdout + done.stderr or "Invalid value" in done.stderr


@pytest.mark.parametrize(
    ("choice", "meant"), [(RoleChoice, Role), (BlobsChoice, BlobsIn), (KeysChoice, KeysIn)]
)
def test_what_can_be_chosen_is_what_the_part_behind_it_knows(
    choice: type[StrEnum], meant: type[StrEnum]
) -> None:
    assert {name: member.value for name, member in choice.__members__.items()} == {
        name: member.value for name, member in meant.__members__.items()
    }
