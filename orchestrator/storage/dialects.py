"""What SQLite and PostgreSQL say differently; nobody else asks which of them it is.

Migrations use `append_only`, and the columns `BIG`; use cases use `insert_missing`.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session

BIG: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""Numbers up to 2**63: SQLite's integers are that wide, PostgreSQL's `INTEGER` ends at 2**31."""


def insert_missing(session: Session, table: type[DeclarativeBase], **values: object) -> bool:
    """Insert a row unless one with its key is there; return whether it was inserted."""
    key = sa.inspect(table).primary_key[0]
    if session.get_bind().dialect.name == "postgresql":
        postgres = postgresql.insert(table).values(**values).on_conflict_do_nothing()
        return session.execute(postgres.returning(key)).first() is not None
    lite = sqlite.insert(table).values(**values).on_conflict_do_nothing()
    return session.execute(lite.returning(key)).first() is not None


def append_only(bind: sa.Connection, table: str, *verbs: str) -> None:
    """Have the database itself refuse to change or remove rows of a table; for migrations.

    Args:
        bind: `op.get_bind()`.
        table: its name.
        verbs: `UPDATE`, `DELETE`; both where none is given. On PostgreSQL `TRUNCATE` goes with `DELETE`.
    """
    for verb in verbs or ("DELETE", "UPDATE"):
        trigger = f"{table}_no_{verb.lower()}"
        if bind.dialect.name == "postgresql":
            bind.exec_driver_sql(_REFUSE)
            bind.exec_driver_sql(
                f"CREATE TRIGGER {trigger} BEFORE {verb} ON {table} FOR EACH ROW "
                "EXECUTE FUNCTION pht_evidence_stays()"
            )
            if verb == "DELETE":
                bind.exec_driver_sql(
                    f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
                    "EXECUTE FUNCTION pht_evidence_stays()"
                )
        else:
            bind.exec_driver_sql(
                f"CREATE TRIGGER {trigger} BEFORE {verb} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'evidence stays'); END"
            )


# As SQLite's trigger, it breaks the statement like a constraint would.
_REFUSE: Final = (
    "CREATE OR REPLACE FUNCTION pht_evidence_stays() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'evidence stays' USING ERRCODE = 'integrity_constraint_violation'; END $$"
)
