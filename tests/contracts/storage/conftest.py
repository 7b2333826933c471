"""Everything over SQLite and over a real PostgreSQL: a database, and where asked for a home, per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_kit import PostgresServer, postgres
from storage_kit import Consortium, Desk, found_consortium, open_desk

from orchestrator.storage.location import Location, file_location


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """`database.url`: empty, or an empty database on the server."""
    if request.param == "sqlite":
        return ""
    found: PostgresServer = request.getfixturevalue("server")
    return found.new_database()


@pytest.fixture
def place(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Location:
    """An empty database."""
    if not url:
        return file_location(tmp_path / "state.db")
    found: PostgresServer = request.getfixturevalue("server")
    return found.location(url)


@pytest.fixture(scope="session")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return found_consortium(tmp_path_factory.mktemp("board"))


@pytest.fixture
def desk(url: str, consortium: Consortium, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path / "orchestrator", consortium, url) as found:
        yield found
