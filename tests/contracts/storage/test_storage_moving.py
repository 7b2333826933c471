"""`database move`: everything arrives, verified; the old is kept; at any doubt the old stays in use."""

from pathlib import Path

import pytest
from orchestrator_site import weights
from postgres_kit import PostgresServer
from sqlalchemy import text
from statement_kit import statement
from storage_kit import ALICE, Consortium, Desk, open_desk
from typer.testing import CliRunner

from orchestrator import moving
from orchestrator.cli import app
from orchestrator.home_lock import hold_home
from orchestrator.moving import move_database
from orchestrator.registry.access import Role
from orchestrator.services import open_services
from orchestrator.settings import Home, load_settings
from orchestrator.storage.copying import TableDigest, table_digests
from orchestrator.storage.location import DatabaseSettings
from orchestrator.storage.tenure import hold_database
from policies.errors import StateError, UnavailableError, UsageError
from policies.refusals import Permitted
from policies.station_statement import sign_statement


@pytest.fixture
def used(consortium: Consortium, tmp_path: Path) -> tuple[Home, str]:
    """A home on SQLite with content, closed; and a token of it."""
    with open_desk(tmp_path / "orchestrator", consortium) as desk:
        token = _use(desk)
        return desk.services.home, token


def _use(desk: Desk) -> str:
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    desk.keep(weights())
    desk.services.orders.accept(ALICE, desk.order())
    stated = sign_statement(statement(2), desk.consortium.identities["amstel"])
    desk.services.statements.take("amstel", stated)
    return desk.services.access.new_token(Role.BOARD, "secretary")


def _contents(home: Home) -> tuple[TableDigest, ...]:
    services = open_services(home)
    try:
        return table_digests(services.database)
    finally:
        services.close()


def test_there_and_back_nothing_is_lost(used: tuple[Home, str], server: PostgresServer) -> None:
    home, token = used
    home.settings_file.write_text("# ours\n" + home.settings_file.read_text())
    before, url = _contents(home), server.new_database()
    there = move_database(home, DatabaseSettings(url=url))
    assert there.tables == before == _contents(home)
    assert {table.table for table in before if table.rows} >= {"tokens", "orders", "stations", "audit_events"}
    assert there.kept is not None
    assert there.kept.read_bytes().startswith(b"SQLite format 3")
    assert not home.database.exists()
    assert load_settings(home, {}).database.url == url
    assert home.settings_file.read_text().startswith("# ours\n")
    services = open_services(home)
    assert services.access.by_token(token).name == "secretary"
    # Numbers that the server gives go on after those that came.
    services.access.new_token(Role.BOARD, "another")
    assert isinstance(services.audit.verify(), Permitted)
    services.close()
    after = _contents(home)
    back = move_database(home, DatabaseSettings())
    assert back.tables == after == _contents(home)
    assert back.kept is None
    assert home.database.is_file()


def test_only_an_empty_database_takes_it(used: tuple[Home, str], server: PostgresServer) -> None:
    home, _ = used
    before, url = _contents(home), server.new_database()
    with server.connect(server.location(url).url.database or "") as connection:
        connection.execute("CREATE TABLE theirs (id int)")
    with pytest.raises(UsageError, match="not empty"):
        move_database(home, DatabaseSettings(url=url))
    assert _contents(home) == before
    with pytest.raises(UsageError, match="in use"):
        move_database(home, DatabaseSettings())


def test_nothing_moves_under_an_orchestrator_at_work(used: tuple[Home, str], server: PostgresServer) -> None:
    home, _ = used
    url = server.new_database()
    with hold_home(home), pytest.raises(UsageError, match="runs on this home"):
        move_database(home, DatabaseSettings(url=url))
    with hold_database(server.location(url)), pytest.raises(UsageError, match="another orchestrator"):
        move_database(home, DatabaseSettings(url=url))
    assert home.database.is_file()


def test_a_row_that_does_not_arrive_as_it_was_stops_the_move(
    used: tuple[Home, str], server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger of the target changes one name: nothing of the copy stays, and the old is in use."""
    from orchestrator.storage.database import Database

    home, _ = used
    before, url = _contents(home), server.new_database()
    migrate = Database.migrate

    def migrate_and_bend(database: Database) -> None:
        migrate(database)
        if not database.location.is_file:
            with database.transaction() as session:
                session.execute(
                    text(
                        "CREATE FUNCTION bend() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$ BEGIN NEW.name := 'mallory'; RETURN NEW; END $$"
                    )
                )
                session.execute(
                    text("CREATE TRIGGER bend BEFORE INSERT ON tokens FOR EACH ROW EXECUTE FUNCTION bend()")
                )

    monkeypatch.setattr(Database, "migrate", migrate_and_bend)
    with pytest.raises(StateError, match="not what was sent"):
        move_database(home, DatabaseSettings(url=url))
    monkeypatch.undo()
    assert load_settings(home, {}).database.url == ""
    assert _contents(home) == before
    with server.connect(server.location(url).url.database or "") as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_a_target_that_is_away_changes_nothing(used: tuple[Home, str], tmp_path: Path) -> None:
    home, _ = used
    before = home.settings_file.read_bytes()
    with pytest.raises(UnavailableError):
        move_database(home, DatabaseSettings(url=f"postgresql://pht@/pht?host={tmp_path}"))
    assert home.settings_file.read_bytes() == before
    assert moving.load_settings(home, {}).database.url == ""


def test_the_command_moves_and_shows(used: tuple[Home, str], server: PostgresServer) -> None:
    home, _ = used
    before = CliRunner().invoke(app, ["database", "show", str(home.path)])
    assert before.exit_code == 0, before.output
    url = server.new_database()
    moved = CliRunner().invoke(app, ["database", "move", str(home.path), "--to", url])
    assert moved.exit_code == 0, moved.output
    assert "rows of audit_events, verified" in moved.output
    after = CliRunner().invoke(app, ["database", "show", str(home.path)])
    assert after.output.splitlines()[1:] == before.output.splitlines()[1:]
    assert after.output.startswith("PostgreSQL")
    status = CliRunner().invoke(app, ["status", str(home.path)])
    assert "PostgreSQL" in status.output, status.output
