import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.registry.access import Principal, Role
from orchestrator.registry.blobs import BlobStore, StoreLimits
from orchestrator.registry.oci.uploads import UploadSessions
from policies.blobs import BlobFolder
from policies.documents import digest_of
from policies.errors import StorageError, UsageError, WireError

LIMITS = StoreLimits(blob_bytes=1 << 20, free_bytes=0)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_however_an_upload_breaks_off_the_whole_arrives(data: bytes, cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, digest = BlobStore(Path(folder), LIMITS), digest_of(data)
        ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for end in ends:
            offset = store.received(digest, "a")
            with store.upload(digest, "a", offset=offset, total=len(data)) as upload:
                upload.write(data[offset:end])
                upload.finish()
            if store.size(digest) is not None:
                break
        assert BlobFolder(Path(folder)).read_bytes(digest, max_bytes=1 << 20) == data
        assert store.received(digest, "a") == 0


def test_an_upload_that_raises_keeps_what_came(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, LIMITS)
    digest = digest_of(b"0123456789")

    def break_off() -> None:
        with store.upload(digest, "a", offset=0, total=10) as upload:
            upload.write(b"01234")
            raise LookupError

    with pytest.raises(LookupError):
        break_off()
    assert store.received(digest, "a") == 5
    assert store.received(digest, "b") == 0


def test_wrong_bytes_leave_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, LIMITS)
    with store.upload(digest_of(b"right"), "a", offset=0, total=5) as upload:
        upload.write(b"wrong")
        with pytest.raises(WireError):
            upload.finish()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_first_part_that_was_damaged_on_disk_is_found(tmp_path: Path) -> None:
    store, data = BlobStore(tmp_path, LIMITS), b"0123456789"
    digest = digest_of(data)
    with store.upload(digest, "a", offset=0, total=10) as upload:
        upload.write(data[:5])
        assert not upload.finish()
    next((tmp_path / "partial").iterdir()).write_bytes(b"x1234")
    with store.upload(digest, "a", offset=5, total=10) as upload:
        upload.write(data[5:])
        with pytest.raises(WireError):
            upload.finish()
    assert store.path(digest) is None


def test_two_uploads_of_one_party_at_once_are_refused(tmp_path: Path) -> None:
    store, digest = BlobStore(tmp_path, LIMITS), digest_of(b"x")
    with (
        store.upload(digest, "a", offset=0, total=1),
        pytest.raises(UsageError, match="under way"),
        store.upload(digest, "a", offset=0, total=1),
    ):
        pass


def test_more_than_announced_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, LIMITS)
    with store.upload(digest_of(b"x"), "a", offset=0, total=1) as upload, pytest.raises(UsageError):
        upload.write(b"xy")


def test_ceilings(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="over the limit"),
        BlobStore(tmp_path, LIMITS).upload(digest_of(b""), "a", offset=0, total=(1 << 20) + 1),
    ):
        pass
    full = BlobStore(tmp_path, StoreLimits(free_bytes=1 << 60))
    with pytest.raises(StorageError, match="full"), full.upload(digest_of(b""), "a", offset=0, total=1):
        pass


def test_uploads_of_others_leave_room_for_the_releases_of_stations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    store, data = BlobStore(tmp_path, StoreLimits(free_bytes=6000)), b"release"
    with pytest.raises(StorageError, match="full"), store.upload(digest_of(b"x"), "a", offset=0, total=1):
        pass
    with store.upload(digest_of(data), "s", offset=0, total=len(data), release=True) as upload:
        upload.write(data)
        assert upload.finish()
    free = 6000
    with (
        pytest.raises(StorageError, match="full"),
        store.upload(digest_of(b"x"), "s", offset=0, total=1, release=True),
    ):
        pass


def test_images_that_are_pushed_leave_that_room_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 12_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    sessions = UploadSessions(tmp_path, StoreLimits(free_bytes=6000))
    alice = Principal(Role.RESEARCHER, "alice")
    session = sessions.begin(alice, "train")
    with sessions.writing(alice, "train", session, 0) as writer:
        with pytest.raises(StorageError, match="full"):
            writer.write(b"01234")
        free += 5
        writer.write(b"01234")


def test_the_disk_is_looked_at_again_while_bytes_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 20_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    store, digest = BlobStore(tmp_path, StoreLimits(free_bytes=6000)), digest_of(b"0123456789")
    with store.upload(digest, "a", offset=0, total=10) as upload:
        upload.write(b"01234")
        free = 12_000
        with pytest.raises(StorageError, match="full"):
            upload.write(b"56789")
    assert store.received(digest, "a") == 5, "what came stays, for when there is room"


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "md5:" + "0" * 64, "sha256:" + "A" * 64])
def test_what_is_no_digest_is_no_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(UsageError):
        BlobStore(tmp_path, LIMITS).path(digest)
