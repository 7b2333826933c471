"""Attack: somebody with the orchestrator's database rewrites what it says was done. Each way is noticed, and located."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.registry.access import Access, Role
from orchestrator.registry.audit import CHAIN, Action, Audit, AuditEvent
from orchestrator.storage import Database, open_database
from policies.chains import EMPTY, ChainBreak, ChainHead, next_link
from policies.console import run
from policies.documents import canonical_json, digest_of
from policies.errors import ExitCode
from policies.refusals import Permitted

COUNT = 6


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path / "state.db")) as found:
        audit = Audit(found)
        Access(found, audit).new_token(Role.RESEARCHER, "mallory")
        for number in range(COUNT - 1):
            audit.append(
                AuditEvent(action=Action.ORDER_ACCEPTED, who="researcher:mallory", about=f"order {number}")
            )
        yield found


def by_hand(tmp_path: Path, *statements: str | tuple[str, tuple[object, ...]]) -> None:
    connection = sqlite3.connect(tmp_path / "state.db")
    for verb in ("delete", "update"):
        connection.execute(f"DROP TRIGGER audit_events_no_{verb}")
    for statement in statements:
        connection.execute(statement) if isinstance(statement, str) else connection.execute(*statement)
    connection.commit()
    connection.close()


def body(tmp_path: Path, seq: int) -> dict[str, object]:
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        row = connection.execute("SELECT body FROM audit_events WHERE seq = ?", (seq,)).fetchone()
    value: dict[str, object] = json.loads(row[0])
    return value


def test_untouched_it_holds(database: Database) -> None:
    result = Audit(database).verify()
    assert isinstance(result, Permitted)
    assert result.value.seq == COUNT


@pytest.mark.parametrize(
    "statement", ["DELETE FROM audit_events", "UPDATE audit_events SET body = x'00' WHERE seq = 1"]
)
def test_the_database_itself_refuses_while_its_triggers_stand(
    database: Database, tmp_path: Path, statement: str
) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert isinstance(Audit(database).verify(), Permitted)


def _other_who(tmp_path: Path) -> tuple[str, tuple[object, ...]]:
    changed = canonical_json(body(tmp_path, 3) | {"who": "researcher:alice"})
    return "UPDATE audit_events SET body = ?, digest = ? WHERE seq = 3", (changed, digest_of(changed))


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("UPDATE audit_events SET body = replace(body, 'order 1', 'order 9') WHERE seq = 3", 3),
        ("UPDATE audit_events SET body = CAST(body AS TEXT) || ' ' WHERE seq = 4", 4),
        ("UPDATE audit_events SET digest = 'sha256:00' WHERE seq = 2", 2),
        (_other_who, 4),
        ("DELETE FROM audit_events WHERE seq = 1", 1),
        ("DELETE FROM audit_events WHERE seq = 4", 4),
        ("UPDATE audit_events SET seq = 100 WHERE seq = 2", 2),
        ("INSERT INTO audit_events SELECT 7, body, digest FROM audit_events WHERE seq = 6", 7),
        ("INSERT INTO audit_events SELECT 0, body, digest FROM audit_events WHERE seq = 6", 1),
        ("UPDATE audit_events SET body = x'ff' WHERE seq = 5", 5),
    ],
)
def test_what_was_changed_is_located(
    database: Database,
    tmp_path: Path,
    how: str | Callable[[Path], tuple[str, tuple[object, ...]]],
    where: int,
) -> None:
    by_hand(tmp_path, how if isinstance(how, str) else how(tmp_path))
    found = Audit(database).verify()
    assert isinstance(found, ChainBreak)
    assert found.seq == where


def test_two_entries_that_changed_places_are_noticed(database: Database, tmp_path: Path) -> None:
    by_hand(
        tmp_path,
        "UPDATE audit_events SET seq = 100 WHERE seq = 3",
        "UPDATE audit_events SET seq = 3 WHERE seq = 4",
        "UPDATE audit_events SET seq = 4 WHERE seq = 100",
    )
    found = Audit(database).verify()
    assert isinstance(found, ChainBreak)
    assert found.seq == 3


def test_a_chain_cut_off_at_its_end_is_noticed_by_who_noted_the_end(
    database: Database, tmp_path: Path
) -> None:
    noted = Audit(database).head()
    by_hand(tmp_path, ("DELETE FROM audit_events WHERE seq = ?", (COUNT,)))
    assert isinstance(Audit(database).verify(), Permitted), "nothing in the chain itself can tell"
    found = Audit(database).verify(noted)
    assert isinstance(found, ChainBreak)
    assert found.seq == COUNT


def test_a_chain_written_anew_as_a_whole_is_noticed_by_who_noted_any_end(
    database: Database, tmp_path: Path
) -> None:
    noted = Audit(database).head()
    head, statements = EMPTY, ["DELETE FROM audit_events"]
    rows: list[str | tuple[str, tuple[object, ...]]] = list(statements)
    for seq in range(1, COUNT + 3):
        link = next_link(CHAIN, {"action": "order-accepted", "who": "nobody", "time": f"{seq}"}, head)
        head = ChainHead(link.seq, link.digest)
        rows.append(("INSERT INTO audit_events VALUES (?, ?, ?)", (link.seq, link.body, link.digest)))
    by_hand(tmp_path, *rows)
    assert isinstance(Audit(database).verify(), Permitted)
    found = Audit(database).verify(noted)
    assert isinstance(found, ChainBreak)
    assert found.seq == COUNT


def test_an_entry_of_another_chain_is_none_of_this_one(database: Database, tmp_path: Path) -> None:
    link = next_link("audit", {"action": "order-accepted"}, Audit(database).head())
    by_hand(tmp_path, ("INSERT INTO audit_events VALUES (?, ?, ?)", (link.seq, link.body, link.digest)))
    found = Audit(database).verify()
    assert isinstance(found, ChainBreak)
    assert found.seq == COUNT + 1


def test_the_command_says_where_and_ends_as_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert run(app, ["init", str(home), "--host", "localhost", "--port", "8443"]) == 0
    for name in ("a", "b", "c"):
        assert run(app, ["token", "new", str(home), "--role", "board", "--name", name]) == 0
    assert run(app, ["audit", "verify", str(home)]) == 0
    noted = capsys.readouterr().out.split("note down ")[1].strip()
    exported = tmp_path / "audit.jsonl"
    assert run(app, ["audit", "export", str(home), str(exported)]) == 0
    assert run(app, ["audit", "verify", str(home), "--file", str(exported), "--known", noted]) == 0
    exported.write_bytes(exported.read_bytes().replace(b"board:b", b"board:x"))
    assert run(app, ["audit", "verify", str(home), "--file", str(exported)]) == ExitCode.REFUSED
    by_hand(home, "DELETE FROM audit_events WHERE seq = 3")
    assert run(app, ["audit", "verify", str(home)]) == 0
    assert run(app, ["audit", "verify", str(home), "--known", noted]) == ExitCode.REFUSED
    capsys.readouterr()
    by_hand_again = sqlite3.connect(home / "state.db")
    by_hand_again.execute("UPDATE audit_events SET body = replace(CAST(body AS TEXT), 'board:a', 'board:x')")
    by_hand_again.commit()
    by_hand_again.close()
    assert run(app, ["audit", "verify", str(home), "--json"]) == ExitCode.REFUSED
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "AUDIT_BROKEN"
    assert "entry 1" in error["message"]
