"""Which version of the tables stands, and how it becomes ours: Alembic, all steps in one transaction.

Both SQLite (with transactions begun by us, not by its driver) and PostgreSQL change tables within transactions, so a
crash at any instant leaves the old version or the new one.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from policies.errors import StateError

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def revision(connection: Connection) -> str | None:
    """Return the version that stands; None where there are no tables of ours."""
    return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """Return this program's version of the tables."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def known_revisions() -> tuple[str, ...]:
    """Return all versions, the first one first."""
    scripts = ScriptDirectory.from_config(_config())
    return tuple(reversed([script.revision for script in scripts.walk_revisions()]))


def is_current(connection: Connection, name: str) -> bool:
    """Whether the tables are in this version's form.

    Raises:
        StateError: a later version of this program wrote them.
    """
    found = revision(connection)
    if found is not None and found not in known_revisions():
        raise StateError(
            f"{name}: was written by a later version of this program", hint="Install that version."
        )
    return found == head()


def upgrade(connection: Connection, name: str, to: str = "head") -> None:
    """Bring the tables to a version's form, within the transaction of `connection`.

    Raises:
        StateError: as for `is_current`.
    """
    # Again, now that nobody else writes: another process may just have done it.
    if is_current(connection, name):
        return
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _config() -> Config:
    config = Config()
    # Alembic reads the value through ConfigParser, where a percent sign is syntax.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
