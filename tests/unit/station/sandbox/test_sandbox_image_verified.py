"""Layers that were read through for one container of a series need no second reading, unless anything about them moved."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from policies.blobs import BlobFolder
from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.image.verified import MAX_SERIES, VALID_S, LayerVerifier

LAYERS = (b"lower" * 3000, b"upper" * 100)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path)


@pytest.fixture
def layers(store: BlobFolder) -> tuple[str, ...]:
    return tuple(store.put_bytes(each).digest for each in LAYERS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(store: BlobFolder, clock: Clock) -> LayerVerifier:
    # As if the layers had come an hour ago.
    return LayerVerifier(store, clock=clock, wall=lambda: time.time() + 3600)


def test_a_series_reads_once_and_everybody_else_always(
    verifier: LayerVerifier, layers: tuple[str, ...]
) -> None:
    assert verifier.verify(layers, "one") == 2
    assert verifier.verify(layers, "one") == 0
    assert verifier.verify(layers) == 2
    assert verifier.verify(layers, "two") == 2
    assert verifier.verify(layers, "one") == 0


def test_what_was_read_counts_for_a_minute_and_not_from_its_last_use(
    verifier: LayerVerifier, layers: tuple[str, ...], clock: Clock
) -> None:
    verifier.verify(layers, "one")
    clock.now += VALID_S / 2
    assert verifier.verify(layers, "one") == 0
    clock.now += VALID_S / 2
    assert verifier.verify(layers, "one") == 2


def _same_size_and_time(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _another_file(path: Path) -> None:
    before = path.stat()
    other = path.with_suffix(".other")
    other.write_bytes(b"X" + path.read_bytes()[1:])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"X")


@pytest.mark.parametrize("change", [_same_size_and_time, _another_file, _longer])
def test_a_layer_that_was_changed_in_between_is_found(
    verifier: LayerVerifier, store: BlobFolder, layers: tuple[str, ...], change: Callable[[Path], None]
) -> None:
    assert verifier.verify(layers, "one") == 2
    assert verifier.verify(layers, "one") == 0
    change(store.path(layers[1]))
    with pytest.raises(RefusedError) as caught:
        verifier.verify(layers, "one")
    assert caught.value.code == RefusalCode.IMAGE_DIGEST
    # And it stays found.
    with pytest.raises(RefusedError):
        verifier.verify(layers, "one")


def test_a_layer_that_went_or_became_a_link_is_found(
    verifier: LayerVerifier, store: BlobFolder, layers: tuple[str, ...], tmp_path: Path
) -> None:
    verifier.verify(layers, "one")
    aside = tmp_path / "aside"
    store.path(layers[0]).rename(aside)
    for make in (lambda: None, lambda: store.path(layers[0]).symlink_to(aside)):
        make()
        with pytest.raises(RefusedError) as caught:
            verifier.verify(layers, "one")
        assert caught.value.code == RefusalCode.IMAGE_UNAVAILABLE


def test_a_file_that_changed_just_before_it_was_read_gets_no_stamp(
    store: BlobFolder, layers: tuple[str, ...], clock: Clock
) -> None:
    # A second write in the same step of the file system's clock could not be told from the first.
    changed = max(store.path(each).stat().st_ctime_ns for each in layers) / 1e9
    verifier = LayerVerifier(store, clock=clock, wall=lambda: changed + 0.5)
    assert verifier.verify(layers, "one") == 2
    assert verifier.verify(layers, "one") == 2


def test_containers_that_start_side_by_side_read_once(
    verifier: LayerVerifier, layers: tuple[str, ...]
) -> None:
    together = threading.Barrier(8)

    def start(_: int) -> int:
        together.wait(60)
        return verifier.verify(layers, "one")

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(start, range(8))) == [0] * 7 + [2]


def test_what_is_remembered_is_bounded(verifier: LayerVerifier, layers: tuple[str, ...]) -> None:
    for number in range(MAX_SERIES + 1):
        verifier.verify(layers, f"series-{number}")
    assert verifier.verify(layers, f"series-{MAX_SERIES}") == 0
    assert verifier.verify(layers, "series-0") == 2
