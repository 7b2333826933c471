"""What goes when there must be room, what never goes, and that a removal that broke off is finished."""

import os
import time
from pathlib import Path

import pytest
from images_kit import MIB, ImageStation, Shelf, layer_of

from policies.documents import digest_of
from policies.errors import RefusedError, StorageError, UnavailableError
from policies.refusals import RefusalCode
from station.images.desk import ImagesDesk
from station.images.sources import SourcedLayer

BASE = layer_of("base", MIB)
TRAINS = tuple(layer_of(f"train{n}", MIB) for n in range(4))


class Filled(ImageStation):
    """Room for four layers of about 1 MiB; three trains on one base are here."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Shelf(), quota=4 * MIB + 200_000)
        (self.shelf,) = self.shelves
        self.images = [self.shelf.add(BASE, train) for train in TRAINS]
        self.needed = {}
        for image in self.images[:3]:
            self.forward(hours=1)
            self.store.fetch(image)

    def here(self) -> set[str]:
        return {shown.record.config_digest for shown in self.store.images()}


@pytest.fixture
def station(tmp_path: Path) -> Filled:
    return Filled(tmp_path / "layers")


def test_what_was_not_used_for_longest_makes_room(station: Filled) -> None:
    first, second, third, fourth = station.images
    station.forward(hours=1)
    station.store.fetch(first)
    station.store.fetch(fourth)
    assert station.here() == {first, third, fourth}
    assert station.engine.removed == [second]
    assert station.kept() >= {digest_of(BASE), digest_of(TRAINS[0])}
    assert digest_of(TRAINS[1]) not in station.kept()
    assert second not in station.kept()
    ((removed, freed, actor),) = station.audited
    assert (removed, actor) == (second, None)
    assert MIB < freed < MIB + 100_000


def test_what_is_needed_never_goes(station: Filled) -> None:
    station.needed = dict.fromkeys(station.images[:3], ("policy trial v1",))
    before = station.kept()
    with pytest.raises(RefusedError) as caught:
        station.store.fetch(station.images[3])
    assert caught.value.code == RefusalCode.RESOURCES_DISK
    assert "quota_mib" in caught.value.hint
    assert station.kept() == before
    assert station.engine.removed == []
    assert station.audited == []


def test_nothing_goes_while_it_is_not_known_what_is_needed(station: Filled) -> None:
    station.needed = None
    with pytest.raises(RefusedError) as caught:
        station.store.fetch(station.images[3])
    assert caught.value.code == RefusalCode.RESOURCES_DISK
    station.forward(days=300)
    assert station.store.collect(None, unneeded=True).images == ()
    assert len(station.here()) == 3


def test_an_image_that_a_container_uses_stays(station: Filled) -> None:
    first, _second, third, fourth = station.images
    station.engine.busy = {first}
    station.store.fetch(fourth)
    assert station.here() == {first, third, fourth}
    assert station.kept() >= {first, digest_of(TRAINS[0])}
    # It goes when the container has gone, and is said to go once.
    station.engine.busy = set()
    assert station.store.collect(None, unneeded=False).images == (first,)
    assert [entry[0] for entry in station.audited].count(first) == 1


@pytest.mark.parametrize(
    "failure", [UnavailableError("gone"), RefusedError(RefusalCode.ENGINE_UNFIT, "unfit")]
)
def test_where_the_engine_cannot_be_asked_nothing_goes(station: Filled, failure: Exception) -> None:
    """Its image's name there follows from what lies here."""
    station.engine.failure = failure
    before = station.kept()
    with pytest.raises(RefusedError) as caught:
        station.store.fetch(station.images[3])
    assert caught.value.code == RefusalCode.RESOURCES_DISK
    assert station.kept() == before
    station.engine.failure = None
    assert station.store.fetch(station.images[3]) > 0


def test_a_full_disk_refuses_before_anything_is_fetched(station: Filled) -> None:
    station.needed = dict.fromkeys(station.images, ("order",))
    station.quota = 1 << 40
    store = station.life()
    station.free = 2 * MIB
    station.shelf.asked.clear()
    with pytest.raises(RefusedError) as caught:
        store.fetch(station.images[3])
    assert caught.value.code == RefusalCode.RESOURCES_DISK
    assert station.shelf.asked == ["find"]


def test_old_images_go_after_their_time_and_not_before(station: Filled) -> None:
    first, second, third, _ = station.images
    station.needed = {second: ("policy",)}
    station.forward(days=29)
    assert station.store.collect(None, unneeded=False).images == ()
    station.forward(days=2)
    gone = station.store.collect("operator:somebody", unneeded=False)
    assert set(gone.images) == {first, third}
    assert 2 * MIB < gone.bytes < 3 * MIB
    assert station.here() == {second}
    assert station.kept() == {second, digest_of(BASE), digest_of(TRAINS[1])}
    assert {entry[2] for entry in station.audited} == {"operator:somebody"}
    assert station.store.collect(None, unneeded=True).images == ()
    station.needed = {}
    assert station.store.collect(None, unneeded=True).images == (second,)
    assert station.kept() == set()


@pytest.mark.parametrize("step", ["audit", "mark", "engine", "first blob", "last blob"])
def test_a_removal_that_broke_off_is_finished(
    station: Filled, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each of its steps; the next life finishes it, and nothing of another image is lost."""
    first, second, third, _fourth = station.images

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if step == "audit":
            station.audited = _Killing(Killed())  # type: ignore[assignment]
        elif step == "mark":
            patched.setattr(station.records, "write_image", kill)
        elif step == "engine":
            patched.setattr(station.engine, "remove_image", kill)
        else:
            patched.setattr(station.records, "remove_layer" if step == "first blob" else "remove_image", kill)
        with pytest.raises(Killed):
            station.store.collect(None, unneeded=True)
    station.audited = []
    station.needed = {second: ("policy",), third: ("policy",)}
    station.life().collect(None, unneeded=step in {"audit", "mark"})
    assert station.here() == {second, third}
    assert station.kept() == {second, third, digest_of(BASE), digest_of(TRAINS[1]), digest_of(TRAINS[2])}
    assert station.engine.removed.count(first) in {1, 2}
    # And what was removed can come again.
    assert station.life().fetch(first) > 0


class _Killing(list):  # type: ignore[type-arg]
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def append(self, _entry: object) -> None:
        raise self._error


def test_what_cannot_be_audited_is_not_removed(station: Filled) -> None:
    station.audited = _Killing(StorageError("full"))  # type: ignore[assignment]
    with pytest.raises(StorageError):
        station.store.collect(None, unneeded=True)
    assert len(station.here()) == 3
    assert station.engine.removed == []


def test_an_image_that_was_leaving_and_is_wanted_again_stays(station: Filled) -> None:
    first = station.images[0]
    record = station.records.image(first)
    assert record is not None
    station.records.write_image(record.model_copy(update={"leaving": True}))
    assert station.store.fetch(first) == 0
    assert station.store.collect(None, unneeded=False).images == ()
    assert first in station.here()


def test_strays_go_after_a_day(station: Filled) -> None:
    stray, half, part = (
        station.blobs.path(station.blobs.put_bytes(b"nobody's").digest),
        station.root / "sha256" / ".incoming-x",
        station.root / "incoming" / ("a" * 64),
    )
    half.write_bytes(b"half")
    part.write_bytes(b"part")
    station.store.collect(None, unneeded=False)
    assert stray.exists()
    assert half.exists()
    assert part.exists()
    yesterday = time.time() - 90_000
    for path in (stray, half, part):
        os.utime(path, (yesterday, yesterday))
    station.store.collect(None, unneeded=False)
    assert not stray.exists()
    assert not half.exists()
    assert not part.exists()
    assert len(station.here()) == 3


def test_what_another_fetch_left_makes_room_before_an_image_does(station: Filled) -> None:
    (station.root / "incoming" / ("a" * 64)).write_bytes(b"x" * MIB)
    station.store.collect("operator:x", unneeded=True)
    station.store.fetch(station.images[0])
    station.store.fetch(station.images[1])
    station.audited.clear()
    station.store.fetch(station.images[2])
    assert not (station.root / "incoming" / ("a" * 64)).exists()
    assert station.audited == []
    assert len(station.here()) == 3


def test_a_base_that_the_new_image_shares_stays_when_the_old_one_goes(tmp_path: Path) -> None:
    station = ImageStation(tmp_path / "layers", Shelf(), quota=3 * MIB + 200_000)
    (shelf,) = station.shelves
    old, new = shelf.add(BASE, TRAINS[0]), shelf.add(BASE, TRAINS[1], TRAINS[2])
    station.store.fetch(old)
    shelf.asked.clear()
    station.store.fetch(new)
    assert station.engine.removed == [old]
    assert station.kept() == {new, *map(digest_of, (BASE, TRAINS[1], TRAINS[2]))}
    assert digest_of(BASE) not in shelf.asked
    ((_, freed, _),) = station.audited
    assert MIB < freed < MIB + 100_000


@pytest.mark.parametrize("ending", ["", ".part"])
def test_what_an_earlier_try_left_counts_once_and_is_gone_on_with(tmp_path: Path, ending: str) -> None:
    station = ImageStation(tmp_path / "layers", Shelf(), quota=MIB + 200_000)
    (shelf,) = station.shelves
    image = shelf.add(BASE)
    part = station.root / "incoming" / (digest_of(BASE).removeprefix("sha256:") + ending)
    part.parent.mkdir(parents=True)
    part.write_bytes(BASE[:600_000])
    whole = shelf.download

    def going_on(sourced: SourcedLayer, path: Path) -> int:
        assert part.read_bytes() == BASE[:600_000]
        part.unlink()
        return whole(sourced, path)

    shelf.download = going_on  # type: ignore[method-assign]
    assert station.store.fetch(image) > 0


def test_a_packed_layer_that_finds_no_room_to_unpack_is_not_fetched_again(tmp_path: Path) -> None:
    station = ImageStation(tmp_path / "layers", Shelf(packed=True), quota=2 * MIB)
    (shelf,) = station.shelves
    image = shelf.add(BASE)
    with pytest.raises(RefusedError) as caught:
        station.store.fetch(image)
    assert caught.value.code == RefusalCode.RESOURCES_DISK
    (part,) = (station.root / "incoming").iterdir()
    assert part.stat().st_size == shelf.images[image].layers[0].size
    station.quota = 100 * MIB
    assert station.life().fetch(image) > 0
    assert list((station.root / "incoming").iterdir()) == []


def test_the_desk_shows_and_looks_once_an_hour(station: Filled) -> None:
    desk = ImagesDesk(station.store, lambda: station.needed, station.quota, lambda: station.now)
    station.needed = {station.images[0]: ("policy trial v1", "order 0123")}
    shown = desk.images()
    assert shown.used_bytes == station.store.used() > 4 * MIB
    by_digest = {view.config_digest: view for view in shown.images}
    assert by_digest[station.images[0]].needed_by == ("policy trial v1", "order 0123")
    assert by_digest[station.images[1]].needed_by == ()
    assert MIB < by_digest[station.images[1]].own_bytes < by_digest[station.images[1]].bytes
    station.needed = None
    assert {view.needed_by for view in desk.images().images} == {None}
    station.needed = {}
    assert desk.look() == 0
    station.forward(days=40)
    assert desk.look() == 3
    station.store.fetch(station.images[0])
    station.forward(minutes=30)
    assert desk.look() == 0
