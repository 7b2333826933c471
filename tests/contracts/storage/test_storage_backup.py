"""Backups and homes from them, over both databases: every byte verified, nothing half, tokens not alive again."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from orchestrator_site import weights
from statement_kit import statement
from storage_kit import ALICE, Consortium, Desk, open_desk

from orchestrator.backup import (
    BackupManifest,
    BackupOptions,
    BlobsIn,
    KeysIn,
    RestoreOptions,
    read_note,
    restore_backup,
    take_backup,
)
from orchestrator.backup.documents import MANIFEST, read_manifest
from orchestrator.federation.orders import RunProgress, RunState
from orchestrator.registry.access import Role
from orchestrator.services import Services, open_services
from orchestrator.settings import Home
from orchestrator.storage.copying import table_digests
from policies.errors import NotFoundError, PhtError, StateError, StorageError, TrustError, UsageError
from policies.refusals import Permitted
from policies.station_statement import sign_statement

FORK = multiprocessing.get_context("fork")
PHRASE = "correct horse battery"
CHANGED = {"tokens", "audit_events"}


@pytest.fixture
def used(desk: Desk) -> Desk:
    """One with content in its tables and folders, and a run half-way."""
    return _use(desk)


@pytest.fixture
def plain(consortium: Consortium, tmp_path: Path) -> Iterator[Path]:
    """A backup of such a home on SQLite: for what is about files."""
    with open_desk(tmp_path / "orchestrator", consortium) as desk:
        take_backup(_use(desk).services.home, tmp_path / "backup", BackupOptions())
        yield tmp_path / "backup"


def _use(desk: Desk) -> Desk:
    desk.services.bundles.put(ALICE, "trivial", "1.0.0", desk.index().encode())
    initial = desk.keep(weights())
    accepted = desk.services.orders.accept(ALICE, desk.order())
    folder = desk.services.runs._folder(accepted.order_digest)
    folder.write_rounds([{"round": 1}])
    folder.write_json("checkpoint.json", {"round": 1, "weights": initial.model_dump()})
    folder.write_progress(RunProgress(state=RunState.RUNNING, round=1, rounds=2, weights=initial.digest))
    stated = sign_statement(statement(2), desk.consortium.identities["amstel"])
    desk.services.statements.take("amstel", stated)
    return desk


def _restored(backup: Path, folder: Path, **options: object) -> Services:
    restore_backup(backup, folder, RestoreOptions(**options))  # type: ignore[arg-type]
    # A restored home of PostgreSQL cannot be opened beside the one it came from: its database is in use.
    return open_services(Home(folder))


def _to_sqlite(backup: Path) -> None:
    """Have a backup of a home on PostgreSQL restored into the home itself, as its operator would write it."""
    settings = backup / "home" / "orchestrator.toml"
    text = settings.read_text()
    lines = ["" if line.startswith("url = ") else line for line in text.splitlines()]
    settings.write_text("\n".join(lines))
    manifest = json.loads((backup / MANIFEST).read_bytes())
    from policies.documents import digest_of_file

    for file in manifest["files"]:
        if file["path"] == "orchestrator.toml":
            file["digest"] = digest_of_file(settings)
    (backup / MANIFEST).write_text(json.dumps(manifest, separators=(",", ":"), sort_keys=True))


def test_a_restored_home_is_the_one_that_was_backed_up(used: Desk, tmp_path: Path) -> None:
    token = used.services.access.new_token(Role.BOARD, "secretary")
    manifest = take_backup(used.services.home, tmp_path / "backup", BackupOptions())
    before = {found.table: found for found in table_digests(used.services.database)}
    assert (manifest.orders, manifest.blobs_in) == (1, BlobsIn.INCLUDED)
    _to_sqlite(tmp_path / "backup")
    services = _restored(tmp_path / "backup", tmp_path / "home")
    try:
        after = {found.table: found for found in table_digests(services.database)}
        assert after.keys() == before.keys()
        assert {name for name in before if before[name] != after[name]} == CHANGED
        assert after["tokens"].rows == before["tokens"].rows
        # Withdrawn, since nobody knows which were revoked after the backup.
        with pytest.raises(TrustError):
            services.access.by_token(token)
        (run,) = services.runs.all(ALICE)
        assert (run.progress.state, run.progress.round) == (RunState.RUNNING, 1)
        here, there = used.services.home, services.home
        for old in sorted(path for path in here.path.rglob("*") if path.is_file()):
            name = old.relative_to(here.path)
            if name.parts[0] in {"run", "logs"} or name.name.startswith("state.db") or ".toml" in name.name:
                continue
            new = there.path / name
            assert new.read_bytes() == old.read_bytes(), name
            assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(old.stat().st_mode), name
        assert isinstance(services.audit.verify(), Permitted)
        note = read_note(there.path)
        assert note is not None
        assert (note.revoked, note.kept_tokens, note.missing_blobs, note.missing_keys) == (
            ("board:secretary",), (), 0, (),
        )  # fmt: skip
    finally:
        services.close()


def test_tokens_are_kept_only_when_told_and_then_named(used: Desk, tmp_path: Path) -> None:
    token = used.services.access.new_token(Role.BOARD, "secretary")
    take_backup(used.services.home, tmp_path / "backup", BackupOptions())
    used.services.access.revoke_tokens(Role.BOARD, "secretary")
    _to_sqlite(tmp_path / "backup")
    services = _restored(tmp_path / "backup", tmp_path / "home", keep_tokens=True)
    note = read_note(tmp_path / "home")
    assert note is not None
    assert (note.revoked, note.kept_tokens) == ((), ("board:secretary",))
    assert services.access.by_token(token).name == "secretary", "that is what the note warns of"
    services.close()


def test_a_notary_whose_memory_went_back_takes_no_next_statement_for_a_fork(
    used: Desk, tmp_path: Path
) -> None:
    key = used.consortium.identities["amstel"]
    take_backup(used.services.home, tmp_path / "backup", BackupOptions())
    used.services.statements.take("amstel", sign_statement(statement(5), key))
    _to_sqlite(tmp_path / "backup")
    services = _restored(tmp_path / "backup", tmp_path / "home")
    assert services.statements.views()[0].sequence == 2
    # What it stated meanwhile, again, and what comes next.
    for sequence in (5, 6):
        services.statements.take("amstel", sign_statement(statement(sequence), key))
    (view,) = services.statements.views()
    assert (view.sequence, view.forks) == (6, 0)
    services.close()


def test_a_restored_database_goes_where_the_settings_say(used: Desk, tmp_path: Path) -> None:
    """On PostgreSQL into an empty database only; on SQLite into the home."""
    take_backup(used.services.home, tmp_path / "backup", BackupOptions())
    if used.location.is_file:
        _restored(tmp_path / "backup", tmp_path / "home").close()
        return
    with pytest.raises(UsageError, match="not empty"):
        restore_backup(tmp_path / "backup", tmp_path / "home", RestoreOptions())
    assert not (tmp_path / "home").exists()
    used.services.database.close()
    _emptied(used)
    services = _restored(tmp_path / "backup", tmp_path / "home")
    assert len(services.runs.all(ALICE)) == 1
    assert not (tmp_path / "home" / "state.db").exists()
    services.close()


def _emptied(used: Desk) -> None:
    from sqlalchemy import text

    with used.services.database.transaction() as session:
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))
    used.services.database.close()


def test_every_file_of_a_backup_is_verified(plain: Path, tmp_path: Path) -> None:
    manifest = read_manifest(plain)
    places = [plain / "home" / file.path for file in manifest.files]
    places += [plain / "blobs" / blob.digest[7:] for blob in manifest.blobs]
    assert len(places) > 15
    for place in places:
        data = place.read_bytes()
        for changed in (bytes([data[0] ^ 1, *data[1:]]) if data else b"x", data + b"x"):
            place.write_bytes(changed)
            with pytest.raises(TrustError):
                restore_backup(plain, tmp_path / "home", RestoreOptions())
            assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "orchestrator"]
        place.unlink()
        with pytest.raises(NotFoundError, match="missing"):
            restore_backup(plain, tmp_path / "home", RestoreOptions())
        place.write_bytes(data)
    restore_backup(plain, tmp_path / "home", RestoreOptions())


def test_a_backup_of_a_later_version_is_refused(plain: Path, tmp_path: Path) -> None:
    text = (plain / MANIFEST).read_text()
    for later in (
        text.replace('"schema_version":1', '"schema_version":2'),
        text.replace('"schema_version":1', '"schema_version":2,"more":true'),
        text.replace('"tables":"', '"tables":"9'),
    ):
        (plain / MANIFEST).write_text(later)
        with pytest.raises(StateError, match="later version"):
            restore_backup(plain, tmp_path / "home", RestoreOptions())
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", ".."])
def test_a_backup_writes_nothing_outside_the_home(plain: Path, tmp_path: Path, path: str) -> None:
    manifest = json.loads((plain / MANIFEST).read_bytes())
    manifest["files"][0]["path"] = path
    (plain / MANIFEST).write_text(json.dumps(manifest, separators=(",", ":"), sort_keys=True))
    with pytest.raises(PhtError):
        restore_backup(plain, tmp_path / "home", RestoreOptions())
    assert sorted(found.name for found in tmp_path.iterdir()) == ["backup", "orchestrator"]


def test_nothing_that_is_there_is_overwritten(plain: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "orchestrator")
    with pytest.raises(UsageError, match="there already"):
        take_backup(home, plain, BackupOptions())
    with pytest.raises(UsageError, match="lies in the home"):
        take_backup(home, home.path / "backup", BackupOptions())
    with pytest.raises(UsageError, match="here already"):
        restore_backup(plain, home.path, RestoreOptions())
    with pytest.raises(NotFoundError):
        take_backup(Home(tmp_path / "nowhere"), tmp_path / "second", BackupOptions())


def test_private_keys_are_encrypted_or_left_out(plain: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "orchestrator")
    secrets = {path.read_bytes() for path in home.path.rglob("*") if path.suffix in {".key", ".secret"}}
    secrets.add(home.notary_key.read_bytes())
    assert len(secrets) == 5
    with pytest.raises(UsageError, match="fewer"):
        take_backup(home, tmp_path / "short", BackupOptions(keys=KeysIn.ENCRYPTED, passphrase="short"))
    for keys in (KeysIn.ENCRYPTED, KeysIn.LEFT_OUT):
        out = tmp_path / str(keys)
        take_backup(home, out, BackupOptions(keys=keys, passphrase=PHRASE))
        stored = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
        assert not any(secret in data for secret in secrets for data in stored)
    sealed = tmp_path / "encrypted"
    for phrase in ("", "another passphrase"):
        with pytest.raises((UsageError, TrustError)):
            restore_backup(sealed, tmp_path / "home", RestoreOptions(passphrase=phrase))
        assert not (tmp_path / "home").exists()
    note = restore_backup(sealed, tmp_path / "home", RestoreOptions(passphrase=PHRASE))
    assert note.missing_keys == ()
    assert (tmp_path / "home/tls/ca.key").read_bytes() == (home.tls / "ca.key").read_bytes()
    assert stat.S_IMODE((tmp_path / "home/tls/ca.key").stat().st_mode) == 0o600
    note = restore_backup(tmp_path / "left-out", tmp_path / "without", RestoreOptions())
    assert note.missing_keys == ("tls/ca.key", "tls/server.key", "keys/notary.pem")


def test_blobs_may_be_listed_and_come_from_elsewhere(plain: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "orchestrator")
    made = take_backup(home, tmp_path / "listed", BackupOptions(blobs=BlobsIn.LISTED))
    assert len(made.blobs) == 4
    assert list((tmp_path / "listed" / "blobs").iterdir()) == []
    assert restore_backup(tmp_path / "listed", tmp_path / "without", RestoreOptions()).missing_blobs == 4
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(home.blobs / "sha256", elsewhere)
    some = next(elsewhere.iterdir())
    data = some.read_bytes()
    some.write_bytes(data + b"x")
    with pytest.raises(TrustError):
        restore_backup(tmp_path / "listed", tmp_path / "home", RestoreOptions(blobs=elsewhere))
    some.write_bytes(data)
    note = restore_backup(tmp_path / "listed", tmp_path / "home", RestoreOptions(blobs=elsewhere))
    assert note.missing_blobs == 0


def test_the_files_of_a_run_are_of_one_moment(used: Desk, tmp_path: Path) -> None:
    """A process writes round after round, first the checkpoint, then the line; no copy is between two rounds."""
    (run,) = used.services.runs.all(ALICE)
    folder = used.services.runs._folder(run.digest)
    (blob,) = {
        weights_
        for weights_ in (folder.read_json("checkpoint.json") or {}).get("weights", {}).values()
        if isinstance(weights_, str)
    }
    stopping = threading.Event()

    def write() -> None:
        rounds: list[dict[str, object]] = []
        while not stopping.wait(0.02):
            number = len(rounds) + 1
            folder.write_json("checkpoint.json", {"round": number, "weights": {"digest": blob}})
            rounds.append({"round": number})
            folder.write_rounds(rounds)
            folder.write_progress(RunProgress(state=RunState.RUNNING, round=number, rounds=10_000))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(4):
            out = tmp_path / f"backup-{number}"
            take_backup(used.services.home, out, BackupOptions(blobs=BlobsIn.LISTED))
            copied = out / "home" / "runs" / run.digest[7:]
            rounds = len((copied / "rounds.jsonl").read_text().splitlines())
            checkpoint = json.loads((copied / "checkpoint.json").read_bytes())["round"]
            assert checkpoint in {rounds, rounds + 1}
    finally:
        stopping.set()
        thread.join()


def _backup_and_die(home: Path, out: Path, step: int) -> None:
    left = [step]

    def progress(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    take_backup(Home(home), out, BackupOptions(), progress)
    os._exit(0)


def test_a_backup_that_is_killed_is_none(used: Desk, tmp_path: Path) -> None:
    used.services.database.close()
    ends = []
    for step in range(8):
        process = FORK.Process(target=_backup_and_die, args=(used.services.home.path, tmp_path / "out", step))
        process.start()
        process.join(120)
        ends.append(process.exitcode)
        if process.exitcode == 0:
            break
        assert not (tmp_path / "out").exists()
    assert -signal.SIGKILL in ends
    assert ends[-1] == 0
    assert isinstance(read_manifest(tmp_path / "out"), BackupManifest)


def _backup_onto_a_full_disk(home: Path, out: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        take_backup(Home(home), out, BackupOptions())
    except StorageError:
        os._exit(7)
    os._exit(0)


def test_a_backup_onto_a_full_disk_leaves_nothing(used: Desk, tmp_path: Path) -> None:
    used.keep(os.urandom(200_000))
    used.services.database.close()
    process = FORK.Process(target=_backup_onto_a_full_disk, args=(used.services.home.path, tmp_path / "out"))
    process.start()
    process.join(120)
    assert process.exitcode == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orchestrator"]
