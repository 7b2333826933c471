"""Image archives are split into blobs that are what the image's config names, or into nothing."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from blobs_kit import blobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies import image_archive
from policies.blobs import Blob, BlobFolder
from policies.bundle import BundleIndex
from policies.documents import digest_of
from policies.errors import DocumentError, PhtError, TrustError
from policies.image_archive import MAX_ARCHIVE_ENTRIES, split_archive, split_image
from policies.image_config import MAX_CONFIG_BYTES

LAYERS = (b"lower" * 1000, b"upper" * 500)
MANIFEST = b"name: train\n"


def config(layers: tuple[bytes, ...] = LAYERS) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()


def tar(entries: dict[str, bytes | str]) -> bytes:
    """A tar archive; a text value makes a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def docker_save(**changed: Any) -> bytes:
    """What Docker 20.10 writes."""
    parts: dict[str, Any] = {
        "listing": [{"Config": "c.json", "RepoTags": ["t:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}],
        "config": config(),
        "layers": LAYERS,
    } | changed
    return tar(
        {
            "a/VERSION": b"1.0",
            "a/layer.tar": parts["layers"][0],
            "b/layer.tar": parts["layers"][1],
            "c.json": parts["config"],
            "manifest.json": json.dumps(parts["listing"]).encode(),
            "repositories": b"{}",
        }
    )


def test_an_archive_becomes_config_layers_and_manifest(store: BlobFolder) -> None:
    index = split_archive(io.BytesIO(docker_save()), store, MANIFEST)
    assert index.config.digest == digest_of(config())
    assert [layer.digest for layer in index.layers] == [digest_of(layer) for layer in LAYERS]
    assert [layer.size for layer in index.layers] == [5000, 2500]
    assert index.manifest == Blob(digest=digest_of(MANIFEST), size=len(MANIFEST))
    assert store.read_bytes(index.layers[1].digest, max_bytes=5000) == LAYERS[1]
    assert len(blobs(store)) == 4
    assert [path.name for path in store.root.iterdir()] == ["sha256"]


def test_an_index_is_read_back_and_names_each_blob_once(store: BlobFolder) -> None:
    layers = (LAYERS[0], LAYERS[0])
    listing = [{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]
    archive = tar(
        {
            "a/layer.tar": LAYERS[0],
            "b/layer.tar": "../a/layer.tar",
            "c.json": config(layers),
            "manifest.json": json.dumps(listing).encode(),
        }
    )
    index = split_archive(io.BytesIO(archive), store, MANIFEST)
    assert BundleIndex.decode(index.encode()) == index
    assert len(index.layers) == 2
    assert len(index.blobs()) == 3


def test_packed_layers_are_unpacked(store: BlobFolder) -> None:
    packed = docker_save(layers=(gzip.compress(LAYERS[0]), LAYERS[1]))
    assert [layer.size for layer in split_image(io.BytesIO(packed), store).layers] == [5000, 2500]


def test_the_layout_of_later_versions_is_read(store: BlobFolder) -> None:
    names = [f"blobs/sha256/{digest_of(layer)[7:]}" for layer in LAYERS]
    config_name = f"blobs/sha256/{digest_of(config())[7:]}"
    archive = tar(
        {
            **dict(zip(names, LAYERS, strict=True)),
            config_name: config(),
            "index.json": b"{}",
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "manifest.json": json.dumps(
                [{"Config": config_name, "RepoTags": None, "Layers": names}]
            ).encode(),
        }
    )
    assert split_image(io.BytesIO(archive), store).config.digest == digest_of(config())


@pytest.mark.parametrize("which", [0, 1])
def test_a_layer_that_the_config_does_not_name_is_refused(store: BlobFolder, which: int) -> None:
    layers = list(LAYERS)
    layers[which] = layers[which][:-1] + b"X"
    with pytest.raises(TrustError):
        split_image(io.BytesIO(docker_save(layers=tuple(layers))), store)
    assert blobs(store) == set()


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not a tar archive at all" * 100,
        docker_save()[:6000],
        tar({}),
        tar({"manifest.json": b"{}"}),
        tar({"manifest.json": b"[]"}),
        tar({"manifest.json": b"[{}]"}),
        docker_save(listing=[{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}] * 2),
        docker_save(listing=[{"Config": "missing.json", "Layers": ["a/layer.tar"]}]),
        docker_save(listing=[{"Config": "c.json", "Layers": ["../../etc/passwd"]}]),
        docker_save(listing=[{"Config": "/etc/passwd", "Layers": ["a/layer.tar"]}]),
        docker_save(listing=[{"Config": "c.json", "Layers": [7]}]),
        docker_save(config=b"[]"),
        docker_save(config=b'{"rootfs":{"diff_ids":[]}}'),
        docker_save(config=b'{"rootfs":{"diff_ids":["md5:1"]}}'),
        docker_save(config=b"x" * (MAX_CONFIG_BYTES + 1)),
        tar({"../evil": b"x"}),
        tar({"/evil": b"x"}),
        tar({"a": "../../evil"}),
        tar({f"f{number}": b"" for number in range(MAX_ARCHIVE_ENTRIES + 1)}),
    ],
)
def test_what_is_no_image_archive_is_refused_and_leaves_nothing(store: BlobFolder, archive: bytes) -> None:
    with pytest.raises(DocumentError):
        split_image(io.BytesIO(archive), store)
    assert blobs(store) == set()
    assert not list(store.root.glob(".split-*"))


def test_a_device_in_the_archive_is_refused(store: BlobFolder) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("device")
        entry.type = tarfile.CHRTYPE
        archive.addfile(entry)
    with pytest.raises(DocumentError):
        split_image(io.BytesIO(buffer.getvalue()), store)


def test_a_bomb_is_refused_while_it_unpacks(store: BlobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "MAX_IMAGE_BYTES", 1 << 20)
    packed = gzip.compress(bytes(64 << 20))
    with pytest.raises(DocumentError, match="larger"):
        split_image(io.BytesIO(docker_save(layers=(packed, LAYERS[1]))), store)
    assert blobs(store) == set()


@pytest.mark.parametrize("tail", [b"", b"more"])
def test_a_packed_layer_ends_where_it_says(store: BlobFolder, tail: bytes) -> None:
    packed = gzip.compress(LAYERS[0])
    packed = packed + tail if tail else packed[:-3]
    with pytest.raises(DocumentError):
        split_image(io.BytesIO(docker_save(layers=(packed, LAYERS[1]))), store)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 12_000), st.integers(0, 255))
def test_any_changed_byte_gives_the_same_image_or_a_refusal(tmp_path: Path, place: int, value: int) -> None:
    data = bytearray(docker_save())
    data[place % len(data)] = value
    try:
        image = split_image(io.BytesIO(bytes(data)), BlobFolder(tmp_path / "store"))
    except PhtError:
        return
    assert image.config.digest == digest_of(config())
    assert [layer.digest for layer in image.layers] == [digest_of(layer) for layer in LAYERS]


def test_an_archive_that_is_not_there_is_named(store: BlobFolder, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"missing\.tar"):
        split_image(tmp_path / "missing.tar", store)
