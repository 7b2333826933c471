"""Attack: the compute service, taken over, has the launcher remove the hospital's own images."""

import subprocess
from pathlib import Path

import pytest
from layer_kit import ordinary

from policies.blobs import BlobFolder
from policies.documents import canonical_json
from policies.errors import WireError
from station.sandbox.engine.api import Engine
from station.sandbox.image.rewriting import read_image
from station.sandbox.launcher import messages
from station.sandbox.launcher.service import answer_request, local_launcher
from station.sandbox.spec import LauncherSettings

pytestmark = pytest.mark.docker


def test_only_a_nameless_image_that_we_would_make_is_removed(tmp_path: Path) -> None:
    store = BlobFolder(tmp_path / "compute" / "layers")
    layer = store.put_bytes(ordinary({"opt/kept": b"x" * 64})).digest
    config = store.put_bytes(
        canonical_json(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]}}
        )
    ).digest
    settings = LauncherSettings(station="attacked", compute_uid=0)
    launcher, engine = local_launcher(tmp_path, settings), Engine(settings.engine_socket)
    image = launcher.load_image(config).image_id
    assert image == read_image(store, config).config_digest
    name = "pht-test-kept-by-the-hospital:1"
    try:
        subprocess.run(["docker", "tag", image, name], check=True, timeout=60)
        assert launcher.remove_image(config) is True
        assert engine.image(name) is not None, "an image that got a name is somebody's"
        subprocess.run(["docker", "rmi", name], check=True, capture_output=True, timeout=60)
    finally:
        subprocess.run(["docker", "rmi", "-f", image], check=False, capture_output=True, timeout=60)
    assert engine.image(image) is None


@pytest.mark.parametrize(
    "argument", ["pht-train-base:0.2", "latest", "", "sha256:short", "sha256:" + "g" * 64, "sha256:" + "0" * 64 + "\n", ["sha256:" + "0" * 64]]
)  # fmt: skip
def test_no_name_and_nothing_else_is_taken_for_a_digest(tmp_path: Path, argument: object) -> None:
    data = canonical_json({"verb": "remove-image", "config_digest": argument})
    with pytest.raises(WireError):
        messages.parse_request(data)
    answer = answer_request(local_launcher(tmp_path, LauncherSettings(station="a", compute_uid=0)), data)
    assert answer.refusal is not None
