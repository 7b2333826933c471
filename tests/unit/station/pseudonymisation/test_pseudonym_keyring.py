import json
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from pseudonym_files import NOW, fixed_key, make_key

from policies.console import run
from policies.errors import StateError, UsageError
from policies.refusals import Permitted
from station.cli import app
from station.intake.audit import verify
from station.intake.installation import MIGRATIONS, init_intake
from station.intake.key_rotation import key_versions, rotate_key
from station.intake.locking import sole_process
from station.pseudonymisation.keyring import Keyring
from station.pseudonymisation.keys import MAX_VERSIONS, PseudonymKey
from station.storage.database import open_database


def rotated(path: Path) -> Keyring:
    before = Keyring.load(path)
    after = before.rotated(NOW + timedelta(days=1))
    after.replace(path, before)
    return after


def test_a_rotated_key_gives_other_pseudonyms_and_the_earlier_ones_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    first = make_key(tmp_path).for_project("registry")
    rotated(path)
    rotated(path)
    ring = Keyring.load(path)
    assert [entry.version for entry in ring.describe()] == [3, 2, 1]
    assert len({entry.key_id for entry in ring.describe()}) == 3
    assert PseudonymKey.load(path).version == 3
    now, then = ring.current.for_project("registry"), ring.version(1).for_project("registry")
    assert then.pseudonym("A", "1") == first.pseudonym("A", "1")
    assert then.remap_uid("1.2.3") == first.remap_uid("1.2.3")
    assert then.shift("A", "1") == first.shift("A", "1")
    assert now.pseudonym("A", "1") != first.pseudonym("A", "1")
    assert now.remap_uid("1.2.3") != first.remap_uid("1.2.3")


def test_the_file_stays_its_owners_alone(tmp_path: Path) -> None:
    make_key(tmp_path)
    rotated(tmp_path / "pseudonym.key")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pseudonym.key"]
    assert stat.S_IMODE((tmp_path / "pseudonym.key").stat().st_mode) == 0o600


def test_a_key_file_of_one_version_is_a_keyring(tmp_path: Path) -> None:
    key = fixed_key(tmp_path)
    ring = Keyring.load(tmp_path / "fixed.key")
    assert ring.current.key_id == key.key_id
    with pytest.raises(StateError, match="no such version"):
        ring.version(2)


def test_two_rotations_at_once_are_one(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    make_key(tmp_path)
    before = Keyring.load(path)
    one, two = before.rotated(NOW), before.rotated(NOW)
    one.replace(path, before)
    with pytest.raises(StateError, match="somebody else"):
        two.replace(path, before)
    assert PseudonymKey.load(path).key_id == one.current.key_id


@pytest.mark.parametrize("change", ["secret", "order"])
def test_a_damaged_earlier_version_is_found(tmp_path: Path, change: str) -> None:
    path = tmp_path / "pseudonym.key"
    make_key(tmp_path)
    rotated(path)
    document = json.loads(path.read_text())
    if change == "secret":
        document["earlier"][0]["secret"] = document["secret"]
    else:
        document["earlier"][0]["version"] = 2
    path.write_text(json.dumps(document))
    with pytest.raises(StateError, match=r"damaged|order"):
        Keyring.load(path)


def test_there_is_an_end_to_versions(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    make_key(tmp_path)
    for _ in range(MAX_VERSIONS - 1):
        rotated(path)
    assert len(Keyring.load(path).describe()) == MAX_VERSIONS
    with pytest.raises(StateError, match="too many"):
        Keyring.load(path).rotated(NOW)


def test_nothing_shown_or_raised_holds_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    make_key(tmp_path)
    ring = rotated(path)
    secrets = [json.loads(path.read_text())["secret"], json.loads(path.read_text())["earlier"][0]["secret"]]
    shown = f"{ring!r} {ring.describe()!r} {ring.current!r} {ring._document!r} {ring._document.earlier!r}"
    assert not any(secret in shown for secret in secrets)


def test_rotation_is_audited_and_needs_the_service_stopped(tmp_path: Path) -> None:
    paths = init_intake(tmp_path)
    with sole_process(paths.root), pytest.raises(StateError, match="another process"):
        rotate_key(tmp_path)
    assert [entry.version for entry in key_versions(tmp_path)] == [1]
    rotate_key(tmp_path)
    assert [entry.version for entry in key_versions(tmp_path)] == [2, 1]
    database = open_database(paths.database, MIGRATIONS)
    try:
        verdict = verify(database)
    finally:
        database.close()
    assert isinstance(verdict, Permitted)
    assert verdict.value.seq == 1


def test_nobody_rotates_another_users_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_intake(tmp_path)
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(UsageError, match="intake's user"):
        rotate_key(tmp_path)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = init_intake(tmp_path)
    secret = json.loads(paths.pseudonym_key.read_text())["secret"]
    assert run(app, ["key", "rotate", "--home", str(tmp_path), "--json"]) == 2
    assert run(app, ["key", "rotate", "--home", str(tmp_path), "--new-pseudonyms"]) == 0
    assert run(app, ["key", "show", "--home", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert [row["version"] for row in json.loads(said.out[said.out.index("[\n") :])] == [2, 1]
    assert secret not in said.out + said.err
