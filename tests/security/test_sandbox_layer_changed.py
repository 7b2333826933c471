"""Attack: one byte of a stored layer or of a stored config is changed after it was verified on arrival."""

import shutil
from pathlib import Path

import pytest
from sandbox_kit import Station

from policies.documents import parse_json
from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.launcher.service import local_launcher

pytestmark = pytest.mark.docker


def copy_of_store(station: Station, home: Path) -> Path:
    (home / "compute" / "cohorts").mkdir(parents=True)
    shutil.copytree(station.store.root, home / "compute" / "layers")
    return home / "compute" / "layers" / "sha256"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("which", ["lowest layer", "highest layer", "config", "missing"])
def test_one_changed_byte_refuses(station: Station, tmp_path: Path, which: str) -> None:
    blobs = copy_of_store(station, tmp_path)
    config_blob = blobs / station.config_digest.removeprefix("sha256:")
    layers = parse_json(config_blob.read_bytes(), what="config")["rootfs"]["diff_ids"]
    if which == "config":
        flip(config_blob)
    elif which == "missing":
        (blobs / layers[-1].removeprefix("sha256:")).unlink()
    else:
        flip(blobs / layers[0 if which == "lowest layer" else -1].removeprefix("sha256:"))
    # The engine has the image loaded already from the good store: that must not help.
    station.launcher.load_image(station.config_digest)
    with pytest.raises(RefusedError) as caught:
        local_launcher(tmp_path, station.settings).load_image(station.config_digest)
    expected = RefusalCode.IMAGE_UNAVAILABLE if which == "missing" else RefusalCode.IMAGE_DIGEST
    assert caught.value.code == expected
