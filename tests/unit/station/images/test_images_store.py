"""What is brought, what is not brought again, what is refused, and that a refusal is kept and cannot be planted."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from images_kit import ImageStation, Shelf, config_of, layer_of
from layer_kit import gzipped, header, layer, ordinary

from policies.documents import digest_of
from policies.errors import NetworkError, NotFoundError, RefusedError, StorageError, TrustError, WireError
from policies.layers import LayerFault, LayerRefusedError
from policies.refusals import RefusalCode
from station.images.sources import SourcedImage, SourcedLayer

BASE, TRAIN, OTHER = layer_of("base", 50_000), layer_of("train"), layer_of("other")
HOSTILE = layer(header(b"dev/mem", b"3", device=(1, 1)))


@pytest.fixture(params=["plain", "packed"])
def station(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStation:
    return ImageStation(tmp_path / "layers", Shelf(packed=request.param == "packed"))


def test_a_second_train_on_the_same_base_brings_its_own_layer_only(station: ImageStation) -> None:
    (shelf,) = station.shelves
    first, second = shelf.add(BASE, TRAIN), shelf.add(BASE, OTHER)
    moved = station.store.fetch(first)
    shelf.asked.clear()
    assert station.store.fetch(second) < moved / 3
    assert shelf.asked == ["find", digest_of(OTHER)]
    assert station.kept() == {first, second, *map(digest_of, (BASE, TRAIN, OTHER))}
    for data in (BASE, TRAIN, OTHER):
        assert station.blobs.read_bytes(digest_of(data), max_bytes=1 << 20) == data
        assert station.blobs.path(digest_of(data)).stat().st_mode & 0o777 == 0o640
        finding = station.store.finding(digest_of(data))
        assert finding is not None
        assert finding.files == 1
    assert list((station.root / "incoming").iterdir()) == []


def test_what_is_whole_asks_nobody(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, TRAIN)
    station.store.fetch(image)
    shelf.asked.clear()
    shelf.reachable = False
    station.forward(days=3)
    assert station.life().fetch(image) == 0
    assert shelf.asked == []
    (shown,) = station.store.images()
    assert shown.record.used == station.now
    assert shown.record.fetched < station.now


def test_a_layer_that_went_missing_is_brought_again(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, TRAIN)
    station.store.fetch(image)
    station.blobs.remove(digest_of(TRAIN))
    shelf.asked.clear()
    assert station.store.fetch(image) > 0
    assert shelf.asked == ["find", digest_of(TRAIN)]


def test_an_image_with_one_layer_twice(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, TRAIN, BASE)
    station.store.fetch(image)
    assert shelf.asked.count(digest_of(BASE)) == 1


def test_trains_that_are_prepared_side_by_side_bring_a_layer_once(station: ImageStation) -> None:
    (shelf,) = station.shelves
    images = [shelf.add(BASE, layer_of(f"train{n}")) for n in range(6)]
    together = threading.Barrier(6)

    def fetch(image: str) -> int:
        together.wait(60)
        return station.store.fetch(image)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(fetch, images))
    assert shelf.asked.count(digest_of(BASE)) == 1


def test_a_hostile_layer_is_refused_and_not_fetched_again(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, HOSTILE)
    with pytest.raises(RefusedError) as caught:
        station.store.fetch(image)
    assert caught.value.code == RefusalCode.IMAGE_LAYER
    assert digest_of(HOSTILE) not in station.kept()
    assert list((station.root / "incoming").iterdir()) == []
    assert station.store.images() == []
    shelf.asked.clear()
    with pytest.raises(LayerRefusedError) as again:
        station.life().fetch(image)
    assert again.value.fault is LayerFault.DEVICE
    assert shelf.asked == ["find"]


def test_a_layer_that_was_here_before_is_read_before_it_counts(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, HOSTILE)
    for data in (BASE, HOSTILE):
        station.blobs.put_bytes(data)
    with pytest.raises(LayerRefusedError):
        station.store.fetch(image)
    assert shelf.asked == ["find"]


def test_a_source_cannot_have_another_layer_refused_for_ever(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE)
    (true,) = shelf.images[image].layers
    # Hostile bytes in the place of an honest layer, under the digest of what is moved.
    moved = gzipped(HOSTILE) if shelf.packed else HOSTILE
    shelf.blobs[digest_of(moved)] = moved
    lie = SourcedLayer(true.diff_id, digest_of(moved), len(moved), true.packing)
    shelf.images[image] = SourcedImage(shelf.images[image].config, (lie,))
    with pytest.raises((WireError, TrustError)):
        station.store.fetch(image)
    assert digest_of(BASE) not in station.kept()
    shelf.images[image] = SourcedImage(shelf.images[image].config, (true,))
    assert station.store.fetch(image) > 0


@pytest.mark.parametrize("place", ["other bytes", "other layers", "other config"])
def test_bytes_that_are_not_their_digest_are_not_kept(station: ImageStation, place: str) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, TRAIN)
    found = shelf.images[image]
    if place == "other bytes":
        shelf.blobs[found.layers[1].digest] = gzipped(OTHER) if shelf.packed else OTHER
    elif place == "other layers":
        shelf.images[image] = SourcedImage(found.config, found.layers[::-1])
    else:
        shelf.images[image] = SourcedImage(config_of(BASE, TRAIN, evil=True), found.layers)
    with pytest.raises((WireError, TrustError)):
        station.store.fetch(image)
    assert digest_of(TRAIN) not in station.kept()
    assert station.store.images() == []


def test_a_bomb_is_refused_by_its_ratio_and_not_fetched_again(tmp_path: Path) -> None:
    """These bytes are refused, not their layer: the next source has it as it is."""
    packed, plain = Shelf("packed", packed=True), Shelf("plain")
    zeros = ordinary({"zeros": b"\0" * (80 << 20)})
    image = packed.add(zeros)
    station = ImageStation(tmp_path / "layers", packed, plain, quota=10 << 30)
    for _ in range(2):
        with pytest.raises(LayerRefusedError) as caught:
            station.store.fetch(image)
        assert caught.value.fault is LayerFault.RATIO
        assert station.store.used() < 1 << 20
    assert packed.asked.count(digest_of(zeros)) == 1
    plain.add(zeros)
    assert station.store.fetch(image) == len(zeros)
    assert packed.asked.count(digest_of(zeros)) == 1


def test_a_packed_layer_asks_for_room_as_it_grows(tmp_path: Path) -> None:
    station = ImageStation(tmp_path / "layers", Shelf(packed=True), quota=1 << 20)
    (shelf,) = station.shelves
    image = shelf.add(layer_of("large", 3 << 20))
    with pytest.raises(RefusedError) as caught:
        station.store.fetch(image)
    assert caught.value.code == RefusalCode.RESOURCES_DISK
    assert station.store.used() < 1 << 20


def test_the_next_source_is_asked_where_the_first_has_it_not(tmp_path: Path) -> None:
    first, second = Shelf("first"), Shelf("second", packed=True)
    station = ImageStation(tmp_path / "layers", first, second)
    image = second.add(BASE)
    manifest = b"name: train\n"
    second.blobs[digest_of(manifest)] = manifest
    assert station.store.manifest(image, digest_of(manifest)) == manifest
    assert station.store.fetch(image) > 0
    assert station.store.images()[0].record.source == "second"
    # One that does not answer is passed over, but it might have had it.
    first.reachable = False
    with pytest.raises(NetworkError):
        station.store.fetch("sha256:" + "0" * 64)
    first.reachable = True
    with pytest.raises(NotFoundError):
        station.store.fetch("sha256:" + "0" * 64)


@pytest.mark.parametrize("fault", ["wrong bytes", "gone", "away", "wrong config"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_source_that_fails_while_it_brings_does_not_keep_the_next_one_out(
    tmp_path: Path, fault: str, packed: bool
) -> None:
    bad, good = Shelf("bad", packed=packed), Shelf("good", packed=packed)
    image = bad.add(BASE, TRAIN)
    good.add(BASE, TRAIN)
    moved = bad.images[image].layers[1].digest
    whole = bad.download

    def failing(sourced: SourcedLayer, path: Path) -> int:
        if sourced.digest == moved:
            raise NotFoundError("gone") if fault == "gone" else NetworkError("away")
        return whole(sourced, path)

    if fault == "wrong bytes":
        bad.blobs[moved] = gzipped(OTHER) if packed else OTHER
    elif fault == "wrong config":
        bad.images[image] = SourcedImage(config_of(OTHER), bad.images[image].layers)
    else:
        bad.download = failing  # type: ignore[method-assign]
    station = ImageStation(tmp_path / "layers", bad, good)
    assert station.store.fetch(image) > len(bad.images[image].config)
    assert station.store.images()[0].record.source == "good"
    # What the first one brought as it should be is not brought again.
    assert good.asked.count(digest_of(BASE)) == (fault == "wrong config")
    assert good.asked.count(digest_of(TRAIN)) == 1


def test_a_lie_about_a_manifest_does_not_keep_the_next_source_out(tmp_path: Path) -> None:
    bad, good = Shelf("bad"), Shelf("good")
    image, manifest = good.add(BASE), b"name: train\n"
    bad.blobs[digest_of(manifest)], good.blobs[digest_of(manifest)] = b"another", manifest
    assert ImageStation(tmp_path / "layers", bad, good).store.manifest(image, digest_of(manifest)) == manifest


def test_what_is_here_does_not_wait_for_what_comes(tmp_path: Path) -> None:
    """While one train's layer comes, another one's manifest, start and removal go on; and what comes loses nothing by it."""
    station = ImageStation(tmp_path / "layers")
    (shelf,) = station.shelves
    here, old, new = shelf.add(TRAIN), shelf.add(BASE), shelf.add(BASE, OTHER)
    manifest = b"name: train\n"
    shelf.blobs[digest_of(manifest)] = manifest
    for image in (here, old):
        station.store.fetch(image)
    station.needed = {here: ("order",)}
    begun, go = threading.Event(), threading.Event()
    whole = shelf.download

    def slow(sourced: SourcedLayer, path: Path) -> int:
        path.write_bytes(b"half")
        begun.set()
        assert go.wait(120)
        return whole(sourced, path)

    shelf.download = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        try:
            coming = pool.submit(station.store.fetch, new)
            assert begun.wait(60)
            assert pool.submit(station.store.manifest, here, digest_of(manifest)).result(120) == manifest
            assert pool.submit(station.store.fetch, here).result(120) == 0
            assert pool.submit(station.store.collect, None, unneeded=True).result(120).images == (old,)
            assert not coming.done()
        finally:
            go.set()
        assert coming.result(60) > 0
    assert station.kept() >= {new, digest_of(BASE), digest_of(OTHER)}


def test_an_image_that_lost_a_layer_on_the_way_is_not_recorded(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE, TRAIN)
    whole = shelf.download

    def losing(sourced: SourcedLayer, path: Path) -> int:
        if sourced.diff_id == digest_of(TRAIN):
            station.blobs.remove(digest_of(BASE))
        return whole(sourced, path)

    shelf.download = losing  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        station.store.fetch(image)
    assert station.store.images() == []
    shelf.download = whole  # type: ignore[method-assign]
    assert station.store.fetch(image) == shelf.images[image].layers[0].size
    assert len(station.store.images()) == 1


def test_a_manifest_is_kept_and_named_by_its_image(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image, manifest = shelf.add(BASE), b"name: train\n"
    shelf.blobs[digest_of(manifest)] = manifest
    for _ in range(2):
        assert station.store.manifest(image, digest_of(manifest)) == manifest
    station.store.fetch(image)
    assert station.store.manifest(image, digest_of(manifest)) == manifest
    assert shelf.asked.count("manifest") == 1
    assert station.store.images()[0].record.manifests == (digest_of(manifest),)
    shelf.blobs[digest_of(b"x")] = b"another"
    with pytest.raises(WireError):
        station.store.manifest(image, digest_of(b"x"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff" * 10, b"x" * 100_000])
def test_a_damaged_record_is_as_none(station: ImageStation, damage: bytes) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE)
    station.store.fetch(image)
    for folder in ("images", "findings"):
        for path in (station.root / folder).iterdir():
            path.write_bytes(damage)
    assert station.store.images() == []
    assert station.store.fetch(image) == 0
    assert len(station.store.images()) == 1


def test_a_broken_download_leaves_its_part_for_the_next(station: ImageStation) -> None:
    (shelf,) = station.shelves
    image = shelf.add(BASE)
    whole = shelf.download

    def broken(sourced: SourcedLayer, path: Path) -> int:
        path.write_bytes(b"half")
        raise NetworkError("gone")

    shelf.download = broken  # type: ignore[method-assign]
    with pytest.raises(NetworkError):
        station.store.fetch(image)
    assert [path.stat().st_size for path in (station.root / "incoming").iterdir()] == [4]
    shelf.download = whole  # type: ignore[method-assign]
    assert station.store.fetch(image) > 0
