"""Blobs: what has a digest for a name has these bytes, and what changed since is noticed."""

import stat
from pathlib import Path
from typing import Any

import pytest
from blobs_kit import blobs

from policies.blobs import Blob, BlobFolder
from policies.documents import digest_of
from policies.errors import DocumentError, NotFoundError, PhtError, StorageError, TrustError


def test_a_blob_has_the_digest_of_its_name(store: BlobFolder) -> None:
    blob = store.put([b"ab", b"c"], expect=digest_of(b"abc"))
    assert blob == Blob(digest=digest_of(b"abc"), size=3)
    assert store.has(blob.digest)
    assert store.size(blob.digest) == 3
    assert stat.S_IMODE(store.path(blob.digest).stat().st_mode) == 0o640
    assert store.rehash(blob.digest) == 3
    with pytest.raises(TrustError):
        store.put([b"abd"], expect=digest_of(b"abc"))
    with pytest.raises(DocumentError):
        store.put([b"abc"], max_bytes=2)
    assert len(blobs(store)) == 1


def test_a_blob_that_changed_is_noticed(store: BlobFolder) -> None:
    digest = store.put_bytes(b"abc").digest
    store.path(digest).write_bytes(b"abd")
    with pytest.raises(TrustError):
        store.rehash(digest)
    with pytest.raises(TrustError):
        store.read_bytes(digest, max_bytes=10)
    store.path(digest).write_bytes(b"abc" * 10)
    with pytest.raises(TrustError):
        store.read_bytes(digest, max_bytes=10)


@pytest.mark.parametrize(
    "name", ["", "abc", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "sha512:" + "a" * 64]
)
def test_a_blob_is_named_by_a_digest_and_nothing_else(store: BlobFolder, name: str) -> None:
    with pytest.raises(DocumentError):
        store.path(name)


def test_a_blob_that_is_a_link_is_not_read(store: BlobFolder, tmp_path: Path) -> None:
    digest = store.put_bytes(b"abc").digest
    (tmp_path / "other").write_bytes(b"abc")
    store.path(digest).unlink()
    store.path(digest).symlink_to(tmp_path / "other")
    with pytest.raises(NotFoundError):
        store.open(digest)


def test_a_store_that_takes_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        BlobFolder(tmp_path / "file" / "store").put_bytes(b"abc")


def test_an_upload_that_breaks_off_leaves_nothing(store: BlobFolder) -> None:
    def broken() -> Any:
        yield b"abc"
        raise ConnectionResetError("gone")

    with pytest.raises(PhtError):
        store.put(broken())
    assert blobs(store) == set()
