import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from policies.errors import DataError, NotFoundError, StateError, StorageError
from station.intake import spool
from station.intake.sources import folder
from station.intake.spool import SourceKind
from station.intake.staging import stage_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "Testpatient Eva").mkdir(parents=True)
    (made / "a.dcm").write_bytes(b"first")
    (made / "Testpatient Eva" / "b.dcm").write_bytes(b"second")
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir(mode=0o700)
    return made


def test_files_are_copied_without_their_names(place: Path, source: Path) -> None:
    batch = folder.stage_folder(place, source)
    assert spool.files_of(place, batch.name) == ["0000000", "0000001"]
    assert {(place / batch.name / name).read_bytes() for name in spool.files_of(place, batch.name)} == {
        b"first",
        b"second",
    }
    assert batch.card.files == 2
    assert not [path for path in place.rglob("*") if "estpatient" in path.name]
    assert spool.batches(place) == [batch]


def test_links_and_pipes_are_skipped_and_counted(place: Path, source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (source / "link.dcm").symlink_to(outside / "secret")
    (source / "folder").symlink_to(outside)
    os.mkfifo(source / "pipe")
    batch = folder.stage_folder(place, source)
    assert (batch.card.files, batch.card.skipped) == (2, 2)
    copies = [(place / batch.name / name).read_bytes() for name in spool.files_of(place, batch.name)]
    assert b"secret" not in copies


def test_no_source_or_an_empty_one_leaves_nothing(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        folder.stage_folder(place, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        folder.stage_folder(place, tmp_path / "empty")
    assert list(place.iterdir()) == []


def test_a_copy_that_was_cut_off_is_removed_and_one_being_made_is_not(place: Path, source: Path) -> None:
    batch = folder.stage_folder(place, source)
    cut_off = spool.begin(place, SourceKind.FOLDER, "cxr")
    cut_off.add(b"half")
    os.close(cut_off._held)  # as the kernel does when a process dies
    with spool.begin(place, SourceKind.FOLDER, "cxr") as busy:
        busy.add(b"first")
        recovered = spool.recover_incomplete(place)
        assert (recovered.finished, recovered.removed) == ((), 1)
        assert not (place / f".incoming-{cut_off.name}").exists()
        assert (place / f".incoming-{busy.name}").exists()
        assert spool.batches(place) == [batch]
    assert spool.batches(place) == [batch]
    assert list(place.iterdir()) == [place / batch.name]


@pytest.mark.parametrize(
    "source_kind", [SourceKind.C_STORE, SourceKind.C_MOVE, SourceKind.C_GET, SourceKind.DICOMWEB]
)
def test_what_a_receiver_acknowledged_becomes_a_batch_after_a_crash(
    place: Path, source_kind: SourceKind
) -> None:
    cut_off = spool.begin(place, source_kind, "cxr")
    for data in (b"first", b"second"):
        cut_off.add(data)
    incoming = place / f".incoming-{cut_off.name}"
    (incoming / "0000002.part").write_bytes(b"thi")
    os.close(cut_off._held)
    (batch,) = spool.recover_incomplete(place).finished
    assert (batch.name, batch.card.files, batch.card.source, batch.card.collection) == (
        cut_off.name, 2, source_kind, "cxr",
    )  # fmt: skip
    assert [(place / batch.name / name).read_bytes() for name in spool.files_of(place, batch.name)] == [
        b"first",
        b"second",
    ]
    assert spool.recover_incomplete(place) == spool.Recovered((), 0)


def test_cut_off_before_anything_arrived_leaves_nothing(place: Path) -> None:
    (place / ".incoming-20261122T000000-00000000").mkdir()
    empty = spool.begin(place, SourceKind.C_STORE, None)
    os.close(empty._held)
    assert spool.recover_incomplete(place).removed == 2
    assert list(place.iterdir()) == []


def test_a_finished_batch_takes_nothing_more(place: Path) -> None:
    batch = spool.begin(place, SourceKind.C_STORE, "cxr")
    batch.add(b"first")
    assert batch.finish().card.collection == "cxr"
    with pytest.raises(StateError):
        batch.add(b"second")
    with pytest.raises(StateError):
        batch.finish()
    nothing = spool.begin(place, SourceKind.C_STORE, "cxr")
    with pytest.raises(DataError):
        nothing.finish()
    assert [staged.card.files for staged in spool.batches(place)] == [1]


def test_threads_share_a_batch(place: Path) -> None:
    with spool.begin(place, SourceKind.C_STORE, "cxr") as batch, ThreadPoolExecutor(4) as threads:
        list(threads.map(batch.add, [b"%d" % number for number in range(40)]))
        staged = batch.finish()
    contents = {(place / staged.name / name).read_bytes() for name in spool.files_of(place, staged.name)}
    assert contents == {b"%d" % number for number in range(40)}


def test_a_disk_that_is_nearly_full_takes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = spool.begin(place, SourceKind.C_STORE, "cxr")
    monkeypatch.setattr(spool, "RESERVE_BYTES", 1 << 62)
    with pytest.raises(StorageError):
        batch.add(b"first")
    with pytest.raises(StorageError):
        spool.begin(place, SourceKind.C_STORE, "cxr")
    batch.abandon()
    assert list(place.iterdir()) == []


def test_a_dicomdir_is_skipped(place: Path, source: Path) -> None:
    (source / "DICOMDIR").write_bytes(b"index")
    assert folder.stage_folder(place, source).card.skipped == 1


@pytest.mark.parametrize(
    "name", ["", "..", "../keys", "20261122T000000-zzzzzzzz", "20261122T000000-00000000"]
)
def test_a_batch_that_is_not_there_is_not_opened(place: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        spool.open_batch(place, name)


def test_staging_needs_a_station(tmp_path: Path, source: Path) -> None:
    with pytest.raises(StateError):
        stage_folder(tmp_path / "home", source)


def test_a_damaged_card_keeps_no_other_batch_waiting(
    place: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, sound = folder.stage_folder(place, source), folder.stage_folder(place, source)
    (place / damaged.name / "batch.json").write_bytes(b"[]")
    assert spool.batches(place) == [sound]
    assert "spool-card-damaged" in caplog.text
    (place / damaged.name / "batch.json").unlink()
    assert spool.batches(place) == [sound]
    with pytest.raises(StateError):
        spool.open_batch(place, damaged.name)
    assert len(spool.files_of(place, damaged.name)) == 2
