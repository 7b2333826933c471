"""What is sent of an image where the engine has some of its layers, or had them a moment ago."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from layer_kit import ordinary

from policies.blobs import BlobFolder
from policies.documents import canonical_json, digest_of
from policies.errors import RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox.engine.docker import DockerDialect
from station.sandbox.launcher.images import ImageLoader

LAYERS = (ordinary({"lower": b"lower" * 300}), ordinary({"upper": b"upper"}))
DIFF_IDS = tuple(digest_of(each) for each in LAYERS)
INFO: dict[str, Any] = {"Driver": "overlay2"}


class EngineSimulator:
    """Makes an image of an archive, where it has or is given every layer.

    It may forget what it has shown, take no archive, or make something else of each.
    """

    def __init__(
        self, *images: tuple[str, ...], forgets: bool = False, refuses: bool = False, lies: bool = False
    ) -> None:
        self.images = list(images)
        self.forgets, self.refuses, self.lies = forgets, refuses, lies
        self.given: list[int] = []
        self.made: dict[str, tuple[str, ...]] = {}

    def image(self, name: str) -> dict[str, Any] | None:
        layers = self.made.get(name)
        return None if layers is None else {"Id": name, "RootFS": {"Layers": list(layers)}}

    def image_layers(self) -> list[tuple[str, ...]]:
        shown = list(self.images)
        if self.forgets:
            # Its last image is removed by somebody else, and its layers with it.
            self.images.clear()
        return shown

    def load(self, archive: Iterable[bytes]) -> bool:
        files: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as packed:
            for member in packed:
                found = packed.extractfile(member)
                files[member.name] = b"" if found is None else found.read()
        (entry,) = json.loads(files["manifest.json"])
        config = json.loads(files[entry["Config"]])
        wanted = tuple(config["rootfs"]["diff_ids"])
        brought = {digest_of(files[name]) for name in entry["Layers"] if name in files}
        self.given.append(len(brought))
        if self.refuses or not set(wanted) <= brought | {each for image in self.images for each in image}:
            return False
        if not self.lies:
            self.made[digest_of(files[entry["Config"]])] = wanted
        return True


@pytest.fixture
def store(tmp_path: Path) -> BlobFolder:
    made = BlobFolder(tmp_path / "layers")
    for each in LAYERS:
        made.put_bytes(each)
    return made


@pytest.fixture
def digest(store: BlobFolder) -> str:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": list(DIFF_IDS)},
    }
    return store.put_bytes(canonical_json(config)).digest


def loader(engine: EngineSimulator, store: BlobFolder) -> ImageLoader:
    return ImageLoader(engine, store)  # type: ignore[arg-type]


def test_what_the_engine_has_is_not_sent(store: BlobFolder, digest: str) -> None:
    engine = EngineSimulator(DIFF_IDS[:1])
    assert loader(engine, store).load(digest, DockerDialect(), INFO).layers_sent == 1
    assert engine.given == [1]


def test_a_layer_that_goes_with_another_image_meanwhile_is_sent_and_accuses_nobody(
    store: BlobFolder, digest: str
) -> None:
    engine = EngineSimulator(DIFF_IDS[:1], forgets=True)
    loaded = loader(engine, store).load(digest, DockerDialect(), INFO)
    assert (loaded.layers_sent, loaded.layers_hashed) == (2, 2)
    assert engine.given == [1, 2]


IMAGES: list[tuple[tuple[str, ...], ...]] = [(), (DIFF_IDS[:1],)]


@pytest.mark.parametrize("images", IMAGES)
def test_an_engine_that_says_it_took_what_it_does_not_have_is_not_believed(
    store: BlobFolder, digest: str, images: tuple[tuple[str, ...], ...]
) -> None:
    engine = EngineSimulator(*images, lies=True)
    with pytest.raises(RefusedError) as caught:
        loader(engine, store).load(digest, DockerDialect(), INFO)
    assert caught.value.code == RefusalCode.IMAGE_DIGEST
    assert engine.given[-1] == 2, "it was given all of them"


@pytest.mark.parametrize("images", IMAGES)
def test_an_engine_that_takes_no_image_now_is_asked_again_later(
    store: BlobFolder, digest: str, images: tuple[tuple[str, ...], ...]
) -> None:
    """Nobody's bytes are at fault: its disk is full, or another takes the same layers there just now."""
    engine = EngineSimulator(*images, refuses=True)
    with pytest.raises(UnavailableError):
        loader(engine, store).load(digest, DockerDialect(), INFO)
    assert engine.given[-1] == 2, "it was given all of them"
    engine.refuses = False
    assert loader(engine, store).load(digest, DockerDialect(), INFO).image_id
