"""A full disk, a database that can only be read, one that goes away: named, nothing half done, and over when they are."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchestrator_site import wait_until
from postgres_kit import PASSWORD, PostgresServer, postgres
from pydantic import SecretStr
from sqlalchemy import event, func, select

from orchestrator.portal.problems import status_of
from orchestrator.registry.access import Access, Role
from orchestrator.storage import Database, TokenRow, open_database
from orchestrator.storage.location import DatabaseSettings, Location, file_location, location_of
from orchestrator.storage.tenure import Tenure, hold_database
from policies.errors import PhtError, SettingsError, StorageError, UnavailableError, UsageError


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A server that a test may kill."""
    with postgres() as found:
        yield found


def _tokens(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(TokenRow)) or 0


def _fault(database: Database) -> PhtError:
    with pytest.raises(PhtError) as caught:
        Access(database).new_token(Role.BOARD, "x" * 60)
    assert _tokens(database) == 1, "nothing was half done"
    return caught.value


def test_a_full_disk_under_sqlite_is_507(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state.db")
    Access(database).new_token(Role.BOARD, "before")
    event.listen(
        database._engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1")
    )

    def fill() -> None:
        for _ in range(2000):
            Access(database).new_token(Role.BOARD, "x" * 60)

    with pytest.raises(StorageError) as caught:
        fill()
    assert status_of(caught.value) == 507
    assert "full" in caught.value.message
    there = _tokens(database)
    database.close()
    database = open_database(tmp_path / "state.db")
    Access(database).new_token(Role.BOARD, "after")
    assert _tokens(database) == there + 1, "with room again it goes on"
    database.close()


def test_a_full_disk_under_postgresql_is_507(server: PostgresServer) -> None:
    url = server.new_database()
    database = open_database(server.location(url))
    Access(database).new_token(Role.BOARD, "before")
    with server.connect(database.location.url.database or "") as connection:
        # What the server says when it cannot extend a file, at the moment it would.
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        connection.execute("CREATE TRIGGER full_disk BEFORE INSERT ON tokens EXECUTE FUNCTION full_disk()")
        fault = _fault(database)
        assert (type(fault), status_of(fault)) == (StorageError, 507)
        connection.execute("DROP TRIGGER full_disk ON tokens")
    Access(database).new_token(Role.BOARD, "after")
    database.close()


def test_a_standby_is_503(server: PostgresServer) -> None:
    url = server.new_database()
    location = server.location(url)
    database = open_database(location)
    Access(database).new_token(Role.BOARD, "before")
    database.close()
    with server.connect("postgres") as connection:
        connection.execute(f'ALTER DATABASE "{location.url.database}" SET default_transaction_read_only = on')
        fault = _fault(database)
        assert (type(fault), status_of(fault)) == (UnavailableError, 503)
        assert "read-only" in fault.message
        connection.execute(f'ALTER DATABASE "{location.url.database}" RESET default_transaction_read_only')
    database.close()
    Access(database).new_token(Role.BOARD, "after")
    database.close()


def test_a_file_that_can_only_be_read_is_503(tmp_path: Path) -> None:
    database = open_database(tmp_path / "state.db")
    Access(database).new_token(Role.BOARD, "before")
    event.listen(
        database._engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA query_only=ON")
    )
    fault = _fault(database)
    assert (type(fault), status_of(fault)) == (UnavailableError, 503)
    database.close()


def test_a_killed_server_is_an_error_that_ends_with_its_return(own: PostgresServer) -> None:
    database = open_database(own.location(own.new_database()))
    token = Access(database).new_token(Role.BOARD, "before")
    own.kill()
    for _ in range(2):
        with pytest.raises(UnavailableError, match="does not answer"):
            Access(database).by_token(token)
        with pytest.raises(UnavailableError, match="does not answer"):
            Access(database).new_token(Role.BOARD, "meanwhile")
    own.start()
    assert Access(database).by_token(token).name == "before"
    assert _tokens(database) == 1
    Access(database).new_token(Role.BOARD, "after")
    database.close()


def test_a_server_killed_within_a_transaction_loses_that_transaction(own: PostgresServer) -> None:
    database = open_database(own.location(own.new_database()))

    def killed_in_between() -> None:
        with database.transaction() as session:
            session.add(_row("half"))
            session.flush()
            own.kill()
            session.add(_row("other half"))

    with pytest.raises(UnavailableError):
        killed_in_between()
    own.start()
    assert _tokens(database) == 0
    Access(database).new_token(Role.BOARD, "again")
    assert _tokens(database) == 1
    database.close()


def _row(name: str) -> TokenRow:
    from datetime import UTC, datetime

    from policies.documents import digest_of

    return TokenRow(
        secret_digest=digest_of(name.encode()),
        role="board",
        name=name,
        created=datetime.now(UTC),
        revoked=None,
    )


def test_a_start_waits_for_a_database_that_is_away(own: PostgresServer) -> None:
    location = own.location(own.new_database())
    own.kill()
    with pytest.raises(UnavailableError):
        open_database(location, patience_s=0.3)
    said: list[str] = []

    def waiting(why: str) -> None:
        said.append(why)
        own.start()

    open_database(location, patience_s=120.0, waiting=waiting).close()
    assert len(said) == 1
    assert "does not answer" in said[0]


def test_one_orchestrator_per_database(server: PostgresServer) -> None:
    url = server.new_database()
    location = server.location(url)
    with hold_database(location):
        with pytest.raises(UsageError, match="another orchestrator"), hold_database(location):
            pass
        with hold_database(server.location(server.new_database())):
            pass
    with hold_database(location):
        pass


def test_a_killed_orchestrator_gives_its_database_back(server: PostgresServer) -> None:
    location = server.location(server.new_database())
    code = (
        "import sys, signal; from pathlib import Path\n"
        "from orchestrator.storage.location import DatabaseSettings, location_of\n"
        "from orchestrator.storage.tenure import hold_database\n"
        "with hold_database(location_of(DatabaseSettings(url=sys.argv[1]), Path('none'))):\n"
        "    print('held', flush=True); signal.pause()\n"
    )
    url = server.url_of(location.url.database or "")
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError), hold_database(location):
            pass
        holder.kill()
    wait_until(lambda: _can_be_held(location), 60, "the lock of a killed process")


def _can_be_held(location: Location) -> bool:
    try:
        with hold_database(location):
            return True
    except UsageError:
        return False


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


def test_the_lock_is_taken_again_after_the_servers_return(own: PostgresServer) -> None:
    location = own.location(own.new_database())
    tenure = Tenure(location, _Clock())
    tenure.take()
    own.kill()
    tenure.keep()
    own.start()
    tenure.keep()
    assert not _can_be_held(location)
    tenure.release()
    wait_until(lambda: _can_be_held(location), 60, "the released lock")


def test_who_lost_the_database_to_another_stops(own: PostgresServer) -> None:
    location = own.location(own.new_database())
    tenure = Tenure(location, _Clock())
    tenure.take()
    own.kill()
    tenure.keep()
    own.start()
    with hold_database(location), pytest.raises(UsageError, match="another orchestrator"):
        tenure.keep()
    tenure.release()


def test_a_session_of_ours_that_the_server_still_believes_in_is_ended(own: PostgresServer) -> None:
    location = own.location(own.new_database())
    tenure = Tenure(location, _Clock())
    tenure.take()
    # As after a cut network: the server still holds the old session, we lost it.
    ghost, tenure._connection = tenure._connection, None
    tenure.keep()
    assert not _can_be_held(location)
    tenure.release()
    assert ghost is not None
    ghost.invalidate()
    ghost.close()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"url": "postgresql://pht:secret@db/pht"}, "password"),
        ({"url": "mysql://pht@db/pht"}, "postgresql://"),
        ({"url": "postgresql://pht@db/pht?sslmode=disable"}, "parameters"),
        ({"url": "postgresql://db/pht"}, "user"),
        ({"url": "no url"}, "URL"),
        # The driver takes a host that is no folder as a machine: what goes there would not be encrypted.
        ({"url": "postgresql://pht@/pht?host=db.example"}, "folder"),
        ({"url": "postgresql://pht@/pht?host=@name"}, "folder"),
        ({"url": "postgresql://pht@/pht?host=/run/postgresql,db.example"}, "one server"),
        ({"url": "postgresql://pht@/pht?host=/run/postgresql&host=db.example"}, "parameters"),
        ({"url": "postgresql://pht@/pht?host=/run/postgresql&hostaddr=192.0.2.1"}, "parameters"),
        ({"url": "postgresql://pht@db.example,other.example/pht"}, "one server"),
    ],
)
def test_a_url_is_plain_or_refused(settings: dict[str, str], match: str) -> None:
    from orchestrator.settings import parse_settings

    with pytest.raises(SettingsError, match=match) as caught:
        parse_settings({"front": {"hosts": ["localhost"], "port": 1}, "database": settings})
    assert "secret" not in str(caught.value)


def test_what_leaves_this_machine_is_encrypted(tmp_path: Path) -> None:
    far = DatabaseSettings(url="postgresql://pht@db.example/pht")
    arguments = location_of(far, tmp_path).arguments
    assert (arguments["sslmode"], arguments["sslrootcert"]) == ("verify-full", "system")
    with pytest.raises(SettingsError, match="off is for"):
        location_of(far.model_copy(update={"tls": "off"}), tmp_path)
    assert location_of(DatabaseSettings(), tmp_path / "state.db") == file_location(tmp_path / "state.db")


def _over_tcp(server: PostgresServer, **changes: object) -> DatabaseSettings:
    return DatabaseSettings(url=server.url_of("pht", tcp=True), tls="off").model_copy(update=changes)


def test_the_password_comes_from_a_file_or_the_environment(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    for settings in (
        _over_tcp(server, password_file=str(tmp_path / "password")),
        _over_tcp(server, password=SecretStr(PASSWORD)),
    ):
        location = location_of(settings, tmp_path)
        open_database(location).close()
        assert PASSWORD not in repr(location) + str(location.url) + repr(settings)
    for wrong in (_over_tcp(server), _over_tcp(server, password=SecretStr("another"))):
        with pytest.raises(UnavailableError, match="refuses our user or password") as caught:
            open_database(location_of(wrong, tmp_path))
        assert "another" not in str(caught.value) + caught.value.hint


def test_a_server_that_proves_nothing_is_not_spoken_to(server: PostgresServer, tmp_path: Path) -> None:
    """This server has no certificate at all: with TLS asked for, no password is sent to it."""
    settings = _over_tcp(server, password=SecretStr(PASSWORD), tls="verify-full")
    with pytest.raises(UnavailableError):
        open_database(location_of(settings, tmp_path))
