"""Who does not get the home, or its database, leaves the tables as they are: another version of the program may be serving."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_kit import PostgresServer
from test_storage_migrations import EARLIER, load_recorded, stored

from orchestrator import supervisor
from orchestrator.home_lock import hold_home
from orchestrator.initialise import initialise
from orchestrator.settings import Home, database_location, load_settings, parse_settings
from orchestrator.storage.location import Location
from orchestrator.storage.tenure import hold_database
from orchestrator.storage.upgrading import head
from policies.errors import UnavailableError, UsageError


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on: serving ends there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def _old_home(folder: Path, url: str, port: int, request: pytest.FixtureRequest) -> tuple[Home, Location]:
    """A home with a database as the first version of the program left it."""
    front = {"hosts": ["localhost"], "bind": "127.0.0.1", "port": port}
    home = initialise(folder, parse_settings({"front": front}), None)
    for left in folder.glob("state.db*"):
        left.unlink()
    text = home.settings_file.read_text("utf-8")
    assert 'url = ""' in text
    home.settings_file.write_text(text.replace('url = ""', f'url = "{url}"'), "utf-8")
    location = database_location(home, load_settings(home))
    load_recorded(location, EARLIER[0], request)
    return home, location


def _serve(home: Home) -> None:
    supervisor.serve(home, lambda _: None)


def test_a_second_serve_on_a_home_leaves_its_database_as_it_is(
    url: str, taken: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home, location = _old_home(tmp_path / "home", url, taken, request)
    before = stored(location)
    with hold_home(home), pytest.raises(UsageError, match="runs on this home already"):
        _serve(home)
    assert stored(location) == before
    with pytest.raises(UnavailableError, match="is in use"):
        _serve(home)
    assert stored(location)[0] == head(), "who holds both brings the tables up to date"


def test_another_home_on_a_database_that_is_served_leaves_it_as_it_is(
    server: PostgresServer, taken: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home, location = _old_home(tmp_path / "home", server.new_database(), taken, request)
    before = stored(location)
    with hold_database(location), pytest.raises(UsageError, match="another orchestrator"):
        _serve(home)
    assert stored(location) == before
