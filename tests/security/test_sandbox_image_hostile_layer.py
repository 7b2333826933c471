"""Attack: a layer that would act on the host while the engine, which is root, unpacks it; the compute service is taken over.

Such a service writes what it likes into the layer store, with true digests. The launcher reads each layer itself.
"""

import json
from pathlib import Path

import pytest
from layer_kit import extended, file, hard_link, header, layer, ordinary, record, symlink

from policies.blobs import BlobFolder
from policies.errors import RefusedError
from policies.refusals import RefusalCode
from station.sandbox.engine.api import Engine
from station.sandbox.launcher.service import local_launcher
from station.sandbox.spec import LauncherSettings

pytestmark = pytest.mark.docker

CRON = b"* * * * * root id > /tmp/pht-was-here\n"
CAPABILITY = b"\x01\x00\x00\x02" + b"\xff" * 16
ATTACKS = {
    "the host's disk as a device": layer(header(b"dev/disk", b"4", device=(8, 0), mode=0o666)),
    "the host's memory as a device": layer(header(b"opt/mem", b"3", device=(1, 1), mode=0o666)),
    "a file written above the folder it is unpacked in": layer(file(b"../../../../etc/cron.d/pht", CRON)),
    "a file written by an absolute path": layer(file(b"/etc/cron.d/pht", CRON)),
    "a file written through a link": layer(symlink(b"x", b"/etc/cron.d"), file(b"x/pht", CRON)),
    "a file written through a link that leads up": layer(symlink(b"a/x", b"../../../etc/cron.d"), file(b"a/x/pht", CRON)),
    "the host's password file by a hard link": layer(hard_link(b"opt/shadow", b"../../../../etc/shadow")),
    "a hard link through a link": layer(symlink(b"x", b"/etc"), hard_link(b"opt/shadow", b"x/shadow")),
    "a path that only one of two readers sees": layer(
        extended(record(b"path", b"opt/a"), record(b"path", b"../../etc/cron.d/pht")), file(b"opt/a", CRON)),
    "a size that only one of two readers sees": layer(
        extended(record(b"size", b"1024")), extended(record(b"size", b"0")), file(b"a"), file(b"/etc/cron.d/pht", CRON)),
    "a program with the capabilities of root": layer(
        extended(record(b"SCHILY.xattr.security.capability", CAPABILITY)), file(b"bin/sh", b"#!", mode=0o755)),
    "a folder that shows another folder of the host": layer(
        extended(record(b"SCHILY.xattr.trusted.overlay.redirect", b"/../../../etc")), header(b"opt", b"5")),
    "a marker that removes the folder above": layer(file(b"etc/.wh...")),
    "a sparse file of a petabyte": layer(extended(record(b"GNU.sparse.realsize", b"1125899906842624")), file(b"big")),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_engine_is_given_no_such_layer(tmp_path: Path, attack: str) -> None:
    honest = ordinary({"opt/honest": b"x" * 100})
    store = BlobFolder(tmp_path / "compute" / "layers")
    diff_ids = [
        store.put_bytes(data).digest for data in (honest, ATTACKS[attack], ordinary({"opt/last": b""}))
    ]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    digest = store.put_bytes(json.dumps(config).encode()).digest
    settings = LauncherSettings(station="attacked", compute_uid=0)
    engine = Engine(settings.engine_socket)
    with pytest.raises(RefusedError) as caught:
        local_launcher(tmp_path, settings).load_image(digest)
    assert caught.value.code == RefusalCode.IMAGE_LAYER
    # Others make and remove images of theirs meanwhile.
    assert not [layers for layers in engine.image_layers() if set(diff_ids) & set(layers)]
    assert not Path("/etc/cron.d/pht").exists()
