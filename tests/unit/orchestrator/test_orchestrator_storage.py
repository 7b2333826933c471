import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from orchestrator.registry.access import Access, Role
from orchestrator.storage import open_database
from orchestrator.storage.tables import Base
from policies.errors import StateError, TrustError


def test_the_migrations_make_the_models(tmp_path: Path) -> None:
    open_database(tmp_path / "state.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state.db")
    token = Access(database).new_token(Role.BOARD, "b")
    database.close()
    database = open_database(tmp_path / "state.db")
    assert Access(database).by_token(token).name == "b"
    database.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 500)
    with pytest.raises(StateError, match=r"state\.db"):
        open_database(tmp_path / "state.db")


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path / "state.db").close()
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="later version"):
        open_database(tmp_path / "state.db")


def test_a_token_is_kept_as_its_hash_only(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state.db")
    token = Access(database).new_token(Role.RESEARCHER, "alice")
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token.encode() not in stored
    assert token.removeprefix("pht_").encode() not in stored


@pytest.mark.parametrize("token", ["", "pht_", "pht_" + "0" * 64, "x" * 10_000])
def test_no_other_text_is_a_token(tmp_path: Path, token: str) -> None:
    database = open_database(tmp_path / "state.db")
    with pytest.raises(TrustError):
        Access(database).by_token(token)
    database.close()
