"""Copies all of one database into another, of either kind, and proves by counts and digests that nothing was lost.

Knows the tables from their models only: a table that is added later is copied as well. Invariants: the source is read in
one transaction and never changed; the target was empty, and holds all or nothing afterwards.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from orchestrator.storage.database import Database
from orchestrator.storage.faults import explained
from orchestrator.storage.location import Location, file_location
from orchestrator.storage.tables import Base
from policies.errors import StateError, UsageError

_ROWS_AT_ONCE: Final = 500
_MODULUS: Final = 1 << 256


@dataclass(frozen=True, slots=True)
class TableDigest:
    """What a table holds, whatever the order of its rows.

    Attributes:
        table: its name.
        rows: how many.
        digest: the sum of all rows' SHA-256, modulo 2**256, in hex.
    """

    table: str
    rows: int
    digest: str


def copy_database(source: Database, target: Location) -> tuple[TableDigest, ...]:
    """Copy everything into a database that is empty or absent; return what was copied.

    Raises:
        UsageError: something is in the target already.
        StateError: what arrived is not what was sent; the target was left empty.
        StorageError, UnavailableError: one of them cannot be reached or written.
    """
    copy = Database(target)
    try:
        _refuse_used(copy)
        copy.migrate()
        with source.reading() as reading, copy.transaction() as writing:
            if any(_count(writing, table) for table in Base.metadata.sorted_tables):
                raise UsageError(f"{copy.name}: is not empty", hint="Name an empty database.")
            for table in Base.metadata.sorted_tables:
                for rows in _pages(reading.execute(sa.select(table)).mappings()):
                    writing.execute(sa.insert(table), rows)
                _advance(writing, table)
            sent, arrived = _digests(reading), _digests(writing)
            if sent != arrived:
                # Raised within the transaction: nothing of the copy stays.
                raise StateError(f"{copy.name}: what arrived is not what was sent", hint="Try again.")
        return sent
    finally:
        copy.close()


def table_digests(database: Database) -> tuple[TableDigest, ...]:
    """Return what each table holds, in one transaction."""
    with database.reading() as session:
        return _digests(session)


def snapshot(source: Database, to: Path) -> None:
    """Write one consistent state of a database into a new SQLite file, while others go on writing.

    Raises:
        StorageError, UnavailableError, StateError: as for `copy_database`.
    """
    if source.location.is_file:
        snapshot_file(source.location.path, to)
    else:
        copy_database(source, file_location(to))
        with closing(sqlite3.connect(to)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")


def snapshot_file(source: Path, to: Path) -> None:
    """As `snapshot`, of a SQLite file, page by page; other programs may be at it.

    Raises:
        StorageError, UnavailableError, StateError: as for `copy_database`.
    """
    with explained(source.name):
        try:
            with (
                closing(
                    sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=60)
                ) as reading,
                closing(sqlite3.connect(to)) as writing,
            ):
                reading.backup(writing)
                # One file, without a log beside it.
                writing.execute("PRAGMA journal_mode=DELETE")
                whole = writing.execute("PRAGMA quick_check").fetchall()
        except sqlite3.Error as error:
            raise sa.exc.OperationalError("snapshot", {}, error) from error
    if whole != [("ok",)]:
        raise StateError(f"{source.name}: is damaged", hint="Restore it from an earlier backup.")


def snapshot_facts(file: Path) -> tuple[list[str], str]:
    """Return the orders that a snapshot knows, and the version of its tables.

    Raises:
        StateError: it holds no tables of ours.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            (tables,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            orders = [str(digest) for (digest,) in connection.execute("SELECT digest FROM orders")]
        except (sqlite3.Error, TypeError) as error:
            raise StateError(f"{file.name}: holds no tables of ours") from error
    return orders, str(tables)


def _refuse_used(copy: Database) -> None:
    with copy.reading() as session:
        tables = sa.inspect(session.connection()).get_table_names()
    if tables:
        raise UsageError(f"{copy.name}: is not empty", hint="Name an empty database.")


def _count(session: Any, table: sa.Table) -> int:  # noqa: ANN401 - a session, see mypy's view of scalar
    return int(session.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def _pages(rows: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
    page: list[dict[str, Any]] = []
    for row in rows:
        page.append(dict(row))
        if len(page) == _ROWS_AT_ONCE:
            yield page
            page = []
    if page:
        yield page


def _advance(session: Any, table: sa.Table) -> None:  # noqa: ANN401 - see above
    """Numbers that PostgreSQL gives by itself go on after the highest that was copied."""
    column = table.autoincrement_column
    if column is None or session.get_bind().dialect.name != "postgresql":
        return
    sequence = session.scalar(sa.func.pg_get_serial_sequence(table.name, column.name))
    highest = session.scalar(sa.select(sa.func.max(column)))
    if sequence is not None and highest is not None:
        session.execute(sa.select(sa.func.setval(sequence, highest)))


def _digests(session: Any) -> tuple[TableDigest, ...]:  # noqa: ANN401 - see above
    found = []
    for table in Base.metadata.sorted_tables:
        total, rows = 0, 0
        for row in session.execute(sa.select(table).execution_options(yield_per=_ROWS_AT_ONCE)):
            total = (total + int.from_bytes(hashlib.sha256(_encoded(row)).digest(), "big")) % _MODULUS
            rows += 1
        found.append(TableDigest(table.name, rows, f"{total:064x}"))
    return tuple(found)


def _encoded(row: Iterable[object]) -> bytes:
    """Each value with its kind and length, so that no two rows look alike."""
    parts = []
    for value in row:
        kind, data = _plain(value)
        parts += [kind, len(data).to_bytes(8, "big"), data]
    return b"".join(parts)


def _plain(value: object) -> tuple[bytes, bytes]:
    match value:
        case None:
            return b"n", b""
        case bool():
            return b"b", bytes([value])
        case bytes() | memoryview():
            return b"y", bytes(value)
        case datetime():
            return b"d", value.isoformat().encode()
        case _:
            return type(value).__name__[:1].encode(), repr(value).encode()
