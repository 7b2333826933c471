"""Records a database of one version of the tables, with content, as text: `VERSION.sqlite.sql` and `VERSION.postgresql.sql`.

    PYTHONPATH=tests .venv/bin/python tests/recorded_databases/record.py 0005

Run once for a version, when it is released; what is recorded is never made anew, so that the tests see what homes of that
time hold. Content comes from the tables themselves: in each three rows, with the longest texts, bytes of every value, the
largest numbers, and nothing where nothing may stand.
"""

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from postgres_kit import binaries, postgres

from orchestrator.storage import upgrading
from orchestrator.storage.database import Database
from orchestrator.storage.location import Location, file_location

HERE = Path(__file__).parent
ROWS = 3


def make(location: Location, version: str) -> None:
    """A database of one version, with content."""
    database = Database(location)
    with database.connection() as connection:
        upgrading.upgrade(connection, database.name, version)
    with database.connection() as connection:
        metadata = sa.MetaData()
        metadata.reflect(connection)
        made: dict[str, list[dict[str, Any]]] = {}
        for table in metadata.sorted_tables:
            if table.name == "alembic_version":
                continue
            made[table.name] = [_row(table, number, made) for number in range(ROWS)]
            connection.execute(sa.insert(table), made[table.name])
            column = table.autoincrement_column
            if column is not None and connection.dialect.name == "postgresql":
                sequence = connection.scalar(sa.func.pg_get_serial_sequence(table.name, column.name))
                if sequence is not None:
                    connection.execute(sa.select(sa.func.setval(sequence, ROWS)))
    database.close()


def _row(table: sa.Table, number: int, made: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    row = {}
    for column in table.columns:
        reference = next(iter(column.foreign_keys), None)
        if reference is not None:
            row[column.name] = made[reference.column.table.name][number][reference.column.name]
        elif column.nullable and number == 1:
            row[column.name] = None
        else:
            row[column.name] = _value(column, number)
    return row


def _value(column: sa.Column[Any], number: int) -> Any:
    kind = column.type
    if isinstance(kind, sa.DateTime):
        return datetime(2026, 11, 22, 20, 46, 59, 123456) + timedelta(days=number)  # noqa: DTZ001 - as it is stored
    if isinstance(kind, sa.LargeBinary):
        return bytes(range(256)) * (number + 1)
    if isinstance(kind, sa.Integer):
        # What a key or a small counter takes, and the largest there is.
        return number + 1 if column.primary_key or number < 2 else 2**31 - 1
    if isinstance(kind, sa.String):
        text = f"{number}-{column.table.name}-{column.name}-é'\"\\%\n☃"
        length = kind.length or 100
        return text.ljust(length, "x")[:length] if number == 0 else text[:length]
    raise TypeError(f"{column}: no content for {kind!r}; add it to record.py")


def record(version: str) -> None:
    """Write both texts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.db"
        make(file_location(file), version)
        with closing(sqlite3.connect(file)) as connection:
            text = "\n".join(connection.iterdump()) + "\n"
    (HERE / f"{version}.sqlite.sql").write_text(text, "utf-8")
    with postgres() as server:
        url = server.new_database()
        make(server.location(url), version)
        dumped = subprocess.run(
            [
                str(binaries() / "pg_dump"), "-h", str(server.folder), "-p", str(server.port), "-U", "postgres",
                "--inserts", "--no-owner", "--no-privileges", str(server.location(url).url.database),
            ],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    # Of the tool and its version, and (since 15.14) a random word against injection: nothing of ours.
    lines = [
        line
        for line in dumped.splitlines()
        if not line.startswith(("\\restrict", "\\unrestrict", "-- Dumped"))
    ]
    (HERE / f"{version}.postgresql.sql").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(name)
