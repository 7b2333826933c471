"""One contract for a train's image in an engine: it is ours, it goes when nothing uses it, never under a container, and comes back."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_kit import Engine
from layer_kit import ordinary

from policies.blobs import BlobFolder
from policies.documents import canonical_json
from station.sandbox.engine.api import Engine as EngineApi
from station.sandbox.engine.api import layers_of
from station.sandbox.launcher.service import local_launcher
from station.sandbox.spec import Launcher

pytestmark = pytest.mark.docker


@dataclass
class Image:
    """A small image in a store of its own."""

    launcher: Launcher
    api: EngineApi
    digest: str
    layers: tuple[str, ...]


@pytest.fixture
def image(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    store = BlobFolder(tmp_path / "compute" / "layers")
    unique = uuid.uuid4().hex.encode()
    layers = tuple(store.put_bytes(ordinary({f"opt/{n}": unique * 50})).digest for n in range(2))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": list(layers)}}
    digest = store.put_bytes(canonical_json(config)).digest
    settings = engine.settings()
    made = Image(local_launcher(tmp_path, settings), EngineApi(settings.engine_socket), digest, layers)
    yield made
    made.launcher.remove_image(digest)


def test_an_image_goes_when_no_container_uses_it_and_comes_back(image: Image) -> None:
    loaded = image.launcher.load_image(image.digest)
    assert loaded.layers_sent == 2
    found = image.api.image(loaded.image_id)
    assert found is not None
    assert layers_of(found) == image.layers
    container = image.api.create(
        {"Image": loaded.image_id, "Cmd": ["/opt/0"]}, f"pht-test-{uuid.uuid4().hex[:12]}"
    )
    try:
        assert image.launcher.remove_image(image.digest) is False
        assert image.api.image(loaded.image_id) is not None
    finally:
        image.api.remove(container)
    assert image.launcher.remove_image(image.digest) is True
    assert image.api.image(loaded.image_id) is None
    # Twice is once.
    assert image.launcher.remove_image(image.digest) is True
    again = image.launcher.load_image(image.digest)
    assert again.image_id == loaded.image_id
    assert image.launcher.load_image(image.digest).layers_sent == 0


def test_nothing_else_can_be_removed(image: Image) -> None:
    """What is not whole in our store names no image; and an image's id is computed, never given."""
    loaded = image.launcher.load_image(image.digest)
    for other in ("sha256:" + "0" * 64, image.layers[0], loaded.image_id):
        assert image.launcher.remove_image(other) is True
        assert image.api.image(loaded.image_id) is not None
