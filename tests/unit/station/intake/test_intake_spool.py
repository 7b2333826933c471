import os
from pathlib import Path

import pytest

from policies.errors import DataError, NotFoundError, StateError
from station.intake import spool
from station.intake.staging import stage_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "Testpatient Eva").mkdir(parents=True)
    (folder / "a.dcm").write_bytes(b"first")
    (folder / "Testpatient Eva" / "b.dcm").write_bytes(b"second")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder


def test_files_are_copied_without_their_names(place: Path, source: Path) -> None:
    batch = spool.stage_folder(place, source)
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
    batch = spool.stage_folder(place, source)
    assert (batch.card.files, batch.card.skipped) == (2, 2)
    copies = [(place / batch.name / name).read_bytes() for name in spool.files_of(place, batch.name)]
    assert b"secret" not in copies


def test_no_source_or_an_empty_one_leaves_nothing(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        spool.stage_folder(place, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        spool.stage_folder(place, tmp_path / "empty")
    assert list(place.iterdir()) == []


def test_what_was_cut_off_while_copying_is_removed_and_what_is_being_copied_is_not(
    place: Path, source: Path
) -> None:
    batch = spool.stage_folder(place, source)
    cut_off, busy = place / ".incoming-1", place / ".incoming-2"
    for folder in (cut_off, busy):
        folder.mkdir()
        (folder / "0000000").write_bytes(b"half")
    with spool._held(busy):
        assert spool.remove_incomplete(place) == 1
    assert not cut_off.exists()
    assert busy.exists()
    assert spool.batches(place) == [batch]


@pytest.mark.parametrize(
    "name", ["", "..", "../keys", "20261122T000000-zzzzzzzz", "20261122T000000-00000000"]
)
def test_a_batch_that_is_not_there_is_not_opened(place: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        spool.open_batch(place, name)


def test_staging_needs_a_station(tmp_path: Path, source: Path) -> None:
    with pytest.raises(StateError):
        stage_folder(tmp_path / "home", source)
