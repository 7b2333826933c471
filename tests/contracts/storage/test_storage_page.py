"""The commands of the operator's page, as it says them."""

import shlex
from pathlib import Path

from orchestrator_site import weights
from postgres_kit import PostgresServer
from storage_kit import ALICE, Consortium, open_desk
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.registry.access import Role
from orchestrator.storage.location import DatabaseSettings

README = Path(__file__).parents[3] / "orchestrator" / "README.md"


def _commands(section: str) -> list[str]:
    """Lines of the first block of a section that are commands of ours."""
    text = README.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [line for line in text.split("```")[1].splitlines() if line.startswith("pht-orchestrator ")]


def _run(command: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        command = command.replace(name, value)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, f"{command}: {result.output} {result.exception}"
    return result.output


def test_the_commands_on_backups_do_what_the_page_says(consortium: Consortium, tmp_path: Path) -> None:
    commands = _commands("Backup and restore")
    assert len(commands) == 5
    with open_desk(tmp_path / "home", consortium) as desk:
        desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
        desk.keep(weights())
        desk.services.orders.accept(ALICE, desk.order())
        desk.services.access.new_token(Role.WITNESS, "the-witness")
        (tmp_path / "passphrase").write_text("a long enough passphrase\n")
        places = {
            "NEWHOME": str(tmp_path / "new"),
            "HOME": str(tmp_path / "home"),
            "/backup/": f"{tmp_path}/backup/",
            "/etc/pht/": f"{tmp_path}/",
        }
        # While it is in use.
        said = [_run(command, places) for command in commands]
    assert "backed up 1 runs" in said[0]
    assert "encrypted" in said[1]
    assert "listed" in said[2]
    for text in said[3:]:
        assert "witness:the-witness" in text
        assert "publish again" in text
    assert (tmp_path / "new" / "state.db").is_file()
    status = CliRunner().invoke(app, ["status", str(tmp_path / "new")])
    assert "from the backup of" in status.output


def test_the_commands_on_the_database_do_what_the_page_says(
    consortium: Consortium, tmp_path: Path, server: PostgresServer
) -> None:
    commands = _commands("Database")
    assert len(commands) == 2
    with open_desk(tmp_path / "home", consortium):
        pass
    (tmp_path / "db-password").write_text("not asked for on a socket")
    url = server.new_database()
    assert DatabaseSettings(url="postgresql://pht@db.example:5432/pht").url in commands[0]
    places = {
        "HOME": str(tmp_path / "home"),
        "postgresql://pht@db.example:5432/pht": f"'{url}'",
        "/etc/pht/": f"{tmp_path}/",
    }
    said = [_run(command, places) for command in commands]
    assert "verified" in said[0]
    assert "state.db.moved-" in said[0]
    assert said[1].startswith("PostgreSQL")
